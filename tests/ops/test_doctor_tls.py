"""Encrypted connections to real servers: which certificates are accepted, and what is said of the others."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from models.platform.redis_client import close_async, connect, connect_async
from models.platform.settings import Settings
from ops.child_process import Service
from ops.doctor.finding import Finding, run_check
from ops.doctor.servers import broker, postgres, redis_server
from ops.embedded_servers import running_server
from tasks.broker import build_broker, job_message
from tests.certificates import Authority
from tests.tls_servers import TlsPostgres, TlsRabbitMQ, TlsRedis

CHECKS = {"postgres": postgres, "redis": redis_server, "rabbitmq": broker}


class TlsServers:
    """The three servers, each with the certificate of `localhost`."""

    def __init__(self, home: Path, days: float) -> None:
        self.authority = Authority(home / "authority")
        self.other = Authority(home / "other")
        files = self.authority.issue("localhost", days=days)
        self.postgres = TlsPostgres(home / "postgres-tls", files)
        self.redis = TlsRedis(home, files)
        self.rabbitmq = TlsRabbitMQ(home / "rabbitmq-tls", files)

    def url(self, server: str, *, host: str = "localhost", authority: Authority | None = None) -> str:
        """Return the URL of a server for a client that trusts an authority."""
        trusted = (authority or self.authority).file
        ports = {"postgres": self.postgres.port, "redis": self.redis.tls_port, "rabbitmq": self.rabbitmq.tls_port}
        return {
            "postgres": f"postgresql://postgres@{host}:{{port}}/postgres?sslmode=verify-full&sslrootcert={trusted}",
            "redis": f"rediss://{host}:{{port}}/0?ssl_ca_certs={trusted}",
            "rabbitmq": f"amqps://guest:guest@{host}:{{port}}/?cacertfile={trusted}",
        }[server].format(port=ports[server])

    def check(self, server: str, **options: object) -> Finding:
        """Return what `sangha doctor` says about a server."""
        field = {"postgres": "database_url", "redis": "redis_url", "rabbitmq": "broker_url"}[server]
        return run_check(CHECKS[server], Settings.model_validate({field: self.url(server, **options)}))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    for name in ("run", "logs"):
        (folder / name).mkdir()
    return folder


def run(folder: Path, server: Service) -> Iterator[None]:
    with running_server(server, folder / "run", folder / "logs"):
        yield


@pytest.fixture(scope="module")
def servers(folder: Path) -> TlsServers:
    return TlsServers(folder, days=30)


@pytest.fixture(scope="module")
def running(folder: Path, servers: TlsServers) -> Iterator[Mapping[str, Iterator[None]]]:
    """All three servers."""
    runs = {name: run(folder, getattr(servers, name)) for name in CHECKS}
    for each in runs.values():
        next(each)
    yield runs
    for each in runs.values():
        next(each, None)


@pytest.mark.usefixtures("running")
def test_the_certificate_of_a_private_authority_is_accepted(servers: TlsServers) -> None:
    # Given clients that trust the authority of the servers
    # When they connect to Postgres, by the name of the certificate
    with psycopg.connect(servers.url("postgres")) as connection:
        row = connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
    # Then the connection is encrypted
    assert row == (True,)
    assert servers.check("redis").verdict == "ok"
    assert servers.check("rabbitmq").verdict == "ok"


async def read_async(url: str) -> object:
    client = connect_async(url, timeout=5)
    try:
        return await client.get("key")
    finally:
        await close_async(client)


@pytest.mark.usefixtures("running")
def test_both_kinds_of_redis_clients_speak_tls(servers: TlsServers) -> None:
    with connect(servers.url("redis")) as client:
        client.set("key", b"value")
    assert asyncio.run(read_async(servers.url("redis"))) == b"value"


@pytest.mark.usefixtures("running")
def test_jobs_are_published_over_amqps(servers: TlsServers) -> None:
    # Given the broker of an amqps URL
    queue = build_broker(servers.url("rabbitmq"))
    try:
        # When a job is published
        queue.enqueue(job_message("light", "test", "job_1"))
        # Then a consumer gets it
        with closing(queue.consume("light")) as consumer:
            message = next(iter(consumer))
        assert message is not None
        assert message.args == ("job_1",)
    finally:
        queue.close()


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("server", CHECKS)
def test_a_certificate_of_another_authority_is_refused(servers: TlsServers, server: str) -> None:
    finding = servers.check(server, authority=servers.other)
    assert_refused(finding, "certificate verify failed", "unable to get local issuer certificate")


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("server", CHECKS)
def test_a_certificate_for_another_name_is_refused(servers: TlsServers, server: str) -> None:
    finding = servers.check(server, host="127.0.0.1")
    assert_refused(finding, "does not match host name", "not valid for '127.0.0.1'")


@pytest.mark.parametrize("server", CHECKS)
def test_an_expired_certificate_is_refused(tmp_path: Path, server: str) -> None:
    # Given a server whose certificate has expired yesterday
    for name in ("run", "logs"):
        (tmp_path / name).mkdir()
    expired = TlsServers(tmp_path, days=-1)
    with running_server(getattr(expired, server), tmp_path / "run", tmp_path / "logs"):
        # When the doctor checks it
        finding = expired.check(server)
    # Then it says so; libpq has no reason
    assert_refused(finding, "certificate has expired", "SSL error: certificate verify failed)")


def assert_refused(finding: Finding, *reasons: str) -> None:
    """Check that a finding is one line with one of the reasons, and a remedy."""
    assert finding.verdict == "FAIL"
    assert any(reason in finding.detail for reason in reasons), finding
    assert "\n" not in str(finding)
    assert finding.remedy.startswith("check SANGHA_")


def test_a_missing_file_of_an_amqps_url_is_named() -> None:
    settings = Settings(broker_url="amqps://guest:guest@localhost/?cacertfile=/no/such/file")
    finding = run_check(broker, settings)
    assert finding.detail == "SANGHA_BROKER_URL has cacertfile=/no/such/file: No such file or directory"

"""`sangha doctor`: one line a part, saying how it fares and what to do about it."""

import resource
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psycopg
import redis

from models.platform.errors import ConfigurationError, SanghaError
from models.platform.settings import Settings
from ops.preflight import MIN_FREE_DISK
from ops.services import connectable_host

Verdict = Literal["ok", "warn", "FAIL"]

UP = "run `sangha up`"

#: Streams and their connections are open files; below this, many clients can't be served.
ENOUGH_FILES = 8192

#: Streams and what we use of them are in Redis since 5; 7 is the oldest that its makers still mend.
OLDEST_REDIS = 7

#: What can't be imported under its distribution's own name.
IMPORTED_AS = {"argon2-cffi": "argon2", "email-validator": "email_validator", "yoyo-migrations": "yoyo"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; `remedy` says what to do."""

    verdict: Verdict
    name: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.verdict:<4} {self.name}: {self.what}{f' — {self.remedy}' if self.remedy else ''}"


Check = Callable[[Settings], Finding]


def examine(settings: Settings, say: Callable[[str], None]) -> bool:
    """Make every check and say what it found. Returns whether none failed."""
    findings = []
    for check in CHECKS:
        findings.append(run(check, settings))
        say(str(findings[-1]))
    return all(finding.verdict != "FAIL" for finding in findings)


def run(check: Check, settings: Settings) -> Finding:
    """Make a check; whatever it raises is a finding too."""
    try:
        return check(settings)
    except SanghaError as error:
        return Finding("FAIL", check.__name__.replace("_", " "), one_line(error))
    except Exception as error:  # noqa: BLE001 - the doctor tells of what is broken and doesn't break by it
        return Finding("FAIL", check.__name__.replace("_", " "), f"{type(error).__name__}: {one_line(error)}")


def packages(settings: Settings) -> Finding:
    """Everything that setup.cfg asks for can be imported."""
    try:
        wanted = [line for line in requires("sangha") or [] if "extra ==" not in line]
    except PackageNotFoundError:
        return Finding("warn", "packages", "Sangha itself is not installed", "run make install")
    missing = [name for name in map(distribution, wanted) if find_spec(importable(name)) is None]
    if missing:
        return Finding("FAIL", "packages", f"missing: {', '.join(missing)}", "run make install")
    return Finding("ok", "packages", f"{len(wanted)} found")


def data_folder(settings: Settings) -> Finding:
    """There is a data folder with room in it."""
    home = settings.home
    if not home.exists():
        return Finding("warn", "data folder", f"{home} does not exist yet", UP)
    free = shutil.disk_usage(home).free
    if free < MIN_FREE_DISK:
        return Finding("FAIL", "data folder", f"{home} has {free // 1_000_000} MB free", "make room")
    return Finding("ok", "data folder", f"{home}, {free // 1_000_000_000} GB free")


def postgres(settings: Settings) -> Finding:
    """The database answers, has pgvector, and lacks no migration."""
    try:
        with psycopg.connect(settings.postgres_dsn, connect_timeout=3) as connection:
            version = connection.info.server_version // 10000
            found = connection.execute("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'")
            vector = found.fetchone()
    except psycopg.OperationalError as error:
        remedy = "check SANGHA_DATABASE_URL" if settings.database_url else UP
        return Finding("FAIL", "Postgres", f"does not answer ({one_line(error)})", remedy)
    if vector is None:
        return Finding("FAIL", "Postgres", f"version {version} has no pgvector", "install pgvector on its machine")
    return migrations(settings, f"version {version}, pgvector {vector[0]}")


def migrations(settings: Settings, what: str) -> Finding:
    """The schema is the present one."""
    from models.platform.migrate import pending

    if missing := pending(settings.postgres_dsn):
        return Finding("FAIL", "Postgres", f"{what}, {len(missing)} migrations pending", "run `sangha migrate`")
    return Finding("ok", "Postgres", f"{what}, schema up to date")


def redis_server(settings: Settings) -> Finding:
    """Redis or Valkey answers and is new enough."""
    client = redis.Redis.from_url(settings.redis_address, socket_timeout=3, socket_connect_timeout=3)
    try:
        facts = client.info("server")
    except redis.RedisError as error:
        remedy = "check SANGHA_REDIS_URL" if settings.redis_url else UP
        return Finding("FAIL", "Redis", f"does not answer ({one_line(error)})", remedy)
    finally:
        client.close()
    name, version = (
        ("Valkey", facts["valkey_version"]) if "valkey_version" in facts else ("Redis", facts["redis_version"])
    )
    if int(str(version).split(".")[0]) < OLDEST_REDIS:
        return Finding("FAIL", "Redis", f"{name} {version} is too old", f"use version {OLDEST_REDIS} or later")
    return Finding("ok", "Redis", f"{name} {version}")


def broker(settings: Settings) -> Finding:
    """The queue answers; RabbitMQ must have quorum queues."""
    if not settings.broker_address.startswith("amqp"):
        shared = settings.broker_address == settings.redis_address
        return Finding("ok", "broker", "the same Redis") if shared else other_redis(settings.broker_address)
    return rabbitmq(settings.broker_address)


def other_redis(address: str) -> Finding:
    """A Redis for the queue alone."""
    client = redis.Redis.from_url(address, socket_timeout=3, socket_connect_timeout=3)
    try:
        client.ping()
    except redis.RedisError as error:
        return Finding("FAIL", "broker", f"does not answer ({one_line(error)})", "check SANGHA_BROKER_URL")
    finally:
        client.close()
    return Finding("ok", "broker", "a Redis of its own")


def rabbitmq(address: str) -> Finding:
    """RabbitMQ lets us in and takes a quorum queue."""
    import pika

    parts = urlsplit(address)
    where = f"RabbitMQ at {parts.hostname}:{parts.port or 5672}"
    parameters = pika.URLParameters(address)
    parameters.socket_timeout, parameters.blocked_connection_timeout = 3, 5
    try:
        connection = pika.BlockingConnection(parameters)
    except (pika.exceptions.AMQPError, OSError) as error:
        return Finding("FAIL", "broker", f"{where} does not answer ({describe(error)})", "check SANGHA_BROKER_URL")
    try:
        version = connection._impl.server_properties.get("version", "?")
        queue = f"sangha.doctor.{socket.gethostname()}"
        channel = connection.channel()
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_delete(queue)
    except pika.exceptions.AMQPError as error:
        return Finding("FAIL", "broker", f"{where} takes no quorum queue ({describe(error)})", "use 3.10 or later")
    finally:
        if connection.is_open:
            connection.close()
    return Finding("ok", "broker", f"{where}, version {version}, quorum queues")


def engine(settings: Settings) -> Finding:
    """The engine's model is there and is a GGUF file, or its endpoint says a token."""
    if settings.engine == "scripted":
        return Finding("warn", "engine", "scripted: it answers the same to everybody", "unset SANGHA_ENGINE")
    if settings.engine == "openai":
        from pipelines.inference.hosted import greet

        return Finding("ok", "engine", greet(settings))
    from pipelines.inference.files import engine_file

    return Finding("ok", "engine", f"{settings.engine} with {sized(engine_file(settings))}")


def embedding_model(settings: Settings) -> Finding:
    """The embedder's model is there and is a GGUF file."""
    from pipelines.inference.files import embedder_file

    return Finding("ok", "embedding model", sized(embedder_file(settings)))


def object_store(settings: Settings) -> Finding:
    """A file goes in and comes out again."""
    from models.platform.object_store import Objects

    if settings.object_store is None and not settings.home.exists():
        return Finding("warn", "object store", "none yet: a folder is made on first use", UP)
    objects, key = Objects.open(settings), f"doctor/{socket.gethostname()}"
    objects.put(key, BytesIO(b"well"))
    objects.delete([key])
    return Finding("ok", "object store", settings.object_store or str(settings.home / "objects"))


def mail_server(settings: Settings) -> Finding:
    """It takes our name and password; no letter is sent."""
    from pipelines.delivery.mailers import NotDelivered, SmtpMailer, open_mailer

    mailer = open_mailer(settings)
    if not isinstance(mailer, SmtpMailer):
        return Finding("ok", "mail server", f"none: letters are files in {settings.home / 'mailbox'}")
    where = f"{mailer.host}:{mailer.port}"
    try:
        mailer.check()
    except NotDelivered as error:
        return Finding("FAIL", "mail server", f"{where}: {error}", "check SANGHA_SMTP_URL")
    return Finding("ok", "mail server", f"{where}, from {settings.mail_from}")


def secret_key(settings: Settings) -> Finding:
    """There is a secret to sign with."""
    if settings.secret_key:
        return Finding("ok", "secret key", "SANGHA_SECRET_KEY is set")
    file = settings.home / "secret_key"
    if not file.exists():
        return Finding("warn", "secret key", "none yet: one is made on first use", UP)
    if file.stat().st_mode & 0o077:
        return Finding("FAIL", "secret key", f"others can read {file}", f"chmod 600 {file}")
    return Finding("ok", "secret key", str(file))


def web(settings: Settings) -> Finding:
    """Something of ours listens on the port."""
    import http.client

    where = f"{settings.host}:{settings.port}"
    connection = http.client.HTTPConnection(connectable_host(settings.host), settings.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return Finding("warn", "web", f"nothing answers at {where} ({describe(error)})", f"{UP} or `sangha web`")
    finally:
        connection.close()
    if status == 200:
        return Finding("ok", "web", f"ready at {where}")
    return Finding("FAIL", "web", f"{where}/readyz answers {status}", "see what it says, or choose another port")


def workers(settings: Settings) -> Finding:
    """Every pool that has work has a worker."""
    from models.jobs.catalogue import pools_with_work

    found = Counter(pool for row in living_workers(settings) for pool in row)
    idle = [pool for pool in pools_with_work() if not found[pool]]
    what = ", ".join(f"{pool} {found[pool]}" for pool in pools_with_work())
    if idle:
        return Finding("warn", "workers", what, f"{UP} or `sangha worker {' '.join(idle)}`")
    return Finding("ok", "workers", what)


def living_workers(settings: Settings) -> Sequence[Sequence[str]]:
    """The pools of each worker that gave a sign of life lately."""
    from models.jobs.workers import SILENCE

    found = "SELECT pools FROM workers WHERE seen_at > now() - make_interval(secs => %s)"
    try:
        with psycopg.connect(settings.postgres_dsn, connect_timeout=3) as connection:
            return [row[0] for row in connection.execute(found, (SILENCE,))]
    except psycopg.Error:
        return []


def open_files(settings: Settings) -> Finding:
    """Enough files may be open for many streams."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < ENOUGH_FILES:
        return Finding("warn", "open files", f"at most {hard} streams and connections", f"ulimit -n {ENOUGH_FILES}")
    return Finding("ok", "open files", "no limit" if hard == resource.RLIM_INFINITY else f"at most {hard}")


CHECKS: Sequence[Check] = (
    packages,
    data_folder,
    postgres,
    redis_server,
    broker,
    engine,
    embedding_model,
    object_store,
    mail_server,
    secret_key,
    web,
    workers,
    open_files,
)


def distribution(requirement: str) -> str:
    """`redis<9,>=6` → `redis`."""
    return requirement.split(";")[0].split("[")[0].split("<")[0].split(">")[0].split("~")[0].split("=")[0].strip()


def importable(name: str) -> str:
    """The module of a distribution."""
    return IMPORTED_AS.get(name, name.replace("-", "_"))


def sized(file: Path) -> str:
    """A file and how large it is."""
    return f"{file.name}, {file.stat().st_size // 1_000_000} MB"


def one_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def describe(error: BaseException) -> str:
    """What went wrong, where the text alone may be empty."""
    return f"{type(error).__name__} {error}".strip() if not isinstance(error, ConfigurationError) else str(error)

"""deploy/nginx.conf in front of a running installation: events arrive one by one."""

import json
import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from models.platform.errors import ConfigurationError
from ops.embedded_servers import running_server
from ops.rabbitmq import free_ports
from tests.certificates import Authority
from tests.ops.installation import Up

pytestmark = pytest.mark.timeout(180)

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"

CREDENTIALS = {"email": "me@example.com", "password": "correct horse battery staple"}


class Nginx:
    """nginx with the configuration of compose.yaml, but for addresses and paths."""

    name = "nginx"
    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGKILL
    unprivileged_folder: Path | None = None
    console_pattern: re.Pattern[str] | None = None

    def __init__(self, folder: Path, authority: Authority, web: str) -> None:
        (self.port,) = free_ports(1)
        files = authority.issue("localhost", "127.0.0.1")
        replaced = {
            "/tmp/": f"{folder}/nginx-",
            "web:8000": urlsplit(web).netloc,
            "8443": f"127.0.0.1:{self.port}",
            "/etc/nginx/tls/tls.crt": str(files.cert),
            "/etc/nginx/tls/tls.key": str(files.key),
        }
        text = CONFIGURATION.read_text()
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        self.file = folder / "nginx.conf"
        self.file.write_text(text)
        self.tls = ssl.create_default_context(cafile=str(authority.file))

    def prepare(self) -> None:
        """Check the configuration, as `nginx -t` does."""
        checked = subprocess.run([*self.command(), "-t"], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr

    def command(self) -> list[str]:
        """Return the command."""
        program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        if program is None:
            raise ConfigurationError("nginx is missing: install it, on Debian with `apt install nginx-light`")
        return [program, "-c", str(self.file), "-g", "daemon off;"]

    def environment(self) -> Mapping[str, str]:
        """Return no variables."""
        return {}

    def ready(self, pid: int) -> bool:
        """Return whether it answers."""
        try:
            with self.client() as client:
                return client.get("/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def client(self, **options: object) -> httpx.Client:
        """Return a client of the public address."""
        transport = httpx.HTTPTransport(verify=self.tls, **options)  # type: ignore[arg-type]
        return httpx.Client(base_url=f"https://localhost:{self.port}", transport=transport, timeout=60)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    home = tmp_path_factory.mktemp("proxied") / "data"
    settings = {"SANGHA_TRUSTED_PROXIES": "127.0.0.1", "SANGHA_SCRIPT": "tokens=400,rate=20"}
    up = Up(home, **settings).wait_ready()
    yield up
    up.stop()


@pytest.fixture(scope="module")
def nginx(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    folder = tmp_path_factory.mktemp("nginx")
    for name in ("run", "logs"):
        (folder / name).mkdir()
    server = Nginx(folder, Authority(folder / "authority"), up.address)
    with running_server(server, folder / "run", folder / "logs"):
        yield server


@pytest.fixture(scope="module")
def headers(nginx: Nginx) -> dict[str, str]:
    """The credentials of a user who has signed up through the proxy."""
    with nginx.client() as client:
        return {"Authorization": f"Bearer {client.post('/signup', json=CREDENTIALS).json()['token']}"}


def test_events_arrive_while_the_turn_runs(nginx: Nginx, headers: dict[str, str]) -> None:
    body = {"model": "default", "input": "Hello", "stream": True}
    with nginx.client() as client, client.stream("POST", "/v1/responses", json=body, headers=headers) as stream:
        # Given a stream through the proxy
        lines = (line for line in stream.iter_lines() if line.startswith("data: "))
        # When the first tokens have arrived
        events = (json.loads(line.removeprefix("data: ")) for line in lines)
        response = next(events)["response"]["id"]
        next(event for event in events if event["type"] == "response.output_text.delta")
        # Then the turn still runs
        with nginx.client() as other:
            assert other.get(f"/v1/responses/{response}", headers=headers).json()["status"] == "in_progress"
            other.post(f"/v1/responses/{response}/cancel", headers=headers)
    # And browsers are kept on TLS
    assert stream.headers["strict-transport-security"].startswith("max-age=")

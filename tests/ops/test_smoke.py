"""`sangha smoke` against an installation that works, and against servers that do not."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from ops.rabbitmq import free_ports
from tests.ops.commands import sangha
from tests.ops.installation import Up

pytestmark = pytest.mark.timeout(180)

STEPS = [
    "ready", "sign up", "streamed turn", "background turn", "memory", "file", "cancel", "missing credentials",
    "missing response",
]  # fmt: skip


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tmp_path_factory.mktemp("smoke") / "data", SANGHA_SCRIPT="tokens=20,rate=100").wait_ready()
    yield up
    up.stop()


class Broken(BaseHTTPRequestHandler):
    """Answers that it is ready, and everything else with an error."""

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/readyz" else 500)

    def do_POST(self) -> None:
        self._answer(500)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, status: int) -> None:
        body = b'{"error": "broken"}'
        self.send_response(status)
        self.send_header("x-request-id", "req_broken")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def broken() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_all_steps_pass_and_the_user_is_erased(up: Up) -> None:
    # Given an installation that works
    # When it is checked
    result = sangha("smoke", up.address, "--json")
    # Then each step is a line, and the user that signed up is erased
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["step"] for line in lines if line["ok"]] == [*STEPS, "erase user"], result.output
    assert result.exit_code == 0


def test_run_with_a_key_leaves_nothing(up: Up) -> None:
    with httpx.Client(base_url=up.address) as client:
        # Given an API key of an account
        signup = {"email": "smoke-owner@example.com", "password": "correct horse battery staple"}
        headers = {"Authorization": f"Bearer {client.post('/signup', json=signup).json()['token']}"}
        key = client.post("/v1/api_keys", json={"name": "smoke"}, headers=headers).json()["key"]
        # When the installation is checked with it
        result = sangha("smoke", up.address, "--key", key)
        # Then the account has no file and no memory space
        assert result.exit_code == 0, result.output
        assert "clean up: deleted 3 responses, 1 files and the memories" in result.output
        assert client.get("/v1/files", headers=headers).json()["data"] == []
        assert client.get("/v1/memory_spaces", headers=headers).json()["data"] == []


def test_first_failure_ends_the_run_with_the_request_id(broken: str) -> None:
    # Given a server that is ready, but fails
    # When it is checked
    result = sangha("smoke", broken)
    # Then the second step fails, and no step follows
    ready, failure = result.stdout.splitlines()
    assert ready.startswith("ok")
    assert failure.startswith("FAILED")
    assert "sign up: POST /signup: status 500, expected 201" in failure
    assert failure.endswith("(request req_broken)")
    assert result.exit_code == 1


def test_unreachable_server_is_one_line(unused_address: str) -> None:
    # When nothing listens at the address
    result = sangha("smoke", unused_address, "--timeout", "5")
    # Then one line says so
    assert len(result.stdout.splitlines()) == 1
    assert "ready: GET /readyz:" in result.stdout
    assert result.exit_code == 1


@pytest.fixture
def unused_address() -> str:
    return f"http://127.0.0.1:{free_ports(1)[0]}"


def test_workers_that_hang_fail_the_streamed_turn(tmp_path: Path) -> None:
    # Given an installation whose engine stops at its second token
    up = Up(tmp_path / "data", SANGHA_SCRIPT="tokens=20,rate=0,hang_at=2").wait_ready()
    try:
        # When it is checked with little time
        result = sangha("smoke", up.address, "--timeout", "3")
    finally:
        up.stop()
    # Then the turn fails, and the user is erased nevertheless
    assert "streamed turn: " in result.output
    assert "FAILED" in result.output
    assert "background turn" not in result.output
    assert "erase user" in result.output
    assert result.exit_code == 1

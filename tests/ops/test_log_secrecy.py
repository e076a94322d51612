"""No secret and no content reaches any output of an installation, also at DEBUG.

Every value that a client sends or gets below carries a mark, and all logs and the console are searched for them.
"""

import http.server
import json
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.harness.waiting import wait_until
from tests.ops.commands import sangha
from tests.ops.ecs_fields import check_line
from tests.ops.installation import Up

pytestmark = pytest.mark.timeout(240)

#: In everything that a client sends: content, credentials, names, queries, headers.
MARK = f"hush{secrets.token_hex(6)}"

PASSWORD = f"correct horse {MARK}"

#: The processes of Sangha, whose lines are JSON; the embedded servers have lines of their own form.
PROCESSES = ("web", "worker-inference", "worker-light", "scheduler")


class Receiver(http.server.BaseHTTPRequestHandler):
    """A server at a customer that answers everything with an error that has a mark."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = f'{{"error": "{MARK}"}}'.encode()
        self.send_response(500, MARK)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-secret", MARK)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[str]:
    """The URL of a customer's server, with a secret in its query."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hooks?token={MARK}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Up]:
    """An installation whose engine fails where a message has the word `boom`."""
    up = Up(
        tmp_path / "data",
        SANGHA_LOG_FORMAT="json",
        SANGHA_EGRESS_ALLOW="*,127.0.0.1",
        SANGHA_SCRIPT="tokens=5,fail_at=2,trigger=boom",
    ).wait_ready()
    yield up
    if up.process.poll() is None:
        up.stop()


class Client:
    """A customer whose every value has a mark. `secrets` are the credentials that it gets."""

    def __init__(self, connection: httpx.Client) -> None:
        self.http = connection
        self.secrets: set[str] = set()
        self.email = f"{MARK}@example.com"
        tokens = self.post("/signup", {"email": self.email, "password": PASSWORD}, 201)
        self.keep(tokens["token"], tokens["refresh_token"])

    def keep(self, token: str, *others: str) -> None:
        self.http.headers["authorization"] = f"Bearer {token}"
        self.secrets |= {token, *others}

    def post(self, path: str, body: Any, status: int = 200) -> Any:
        response = self.http.post(path, json=body)
        assert response.status_code == status, response.text
        return response.json()

    def log_in(self) -> None:
        self.post("/login", {"email": self.email, "password": MARK}, 401)
        tokens = self.post("/login", {"email": self.email, "password": PASSWORD})
        self.keep(tokens["token"], tokens["refresh_token"])
        self.post("/auth/password/forgot", {"email": self.email}, 202)
        self.post("/auth/password/reset", {"token": MARK * 3, "password": PASSWORD}, 400)
        self.post("/auth/refresh", {"refresh_token": f"rt_{MARK}"}, 401)

    def manage_keys(self) -> str:
        key = self.post("/v1/api_keys", {"name": MARK}, 201)
        self.secrets.add(key["key"])
        assert self.http.get("/v1/me", headers={"authorization": f"Bearer sk-{MARK}"}).status_code == 401
        assert self.http.get(f"/v1/responses/sk-{MARK}").status_code == 404
        assert self.http.get(f"/{key['key']}/{MARK}?key={key['key']}").status_code == 404
        return str(key["key"])

    def run_turns(self, url: str) -> None:
        turn = {"model": "default", "input": f"Hello {MARK}", "instructions": MARK, "metadata": {MARK: MARK}}
        self.post("/v1/responses", turn | {"user": MARK})
        with self.http.stream("POST", "/v1/responses", json=turn | {"stream": True}) as stream:
            assert "response.completed" in stream.read().decode()
        self.post("/v1/responses", turn | {"input": f"boom {MARK}"})
        tool = {"type": "mcp", "server_label": "shop", "server_url": url, "authorization": MARK}
        self.post("/v1/responses", turn | {"tools": [tool | {"require_approval": "never"}]})
        self.post("/v1/responses", turn | {"model": MARK}, 404)
        self.post("/v1/responses", turn | {"temperature": MARK}, 400)
        assert self.http.post("/v1/responses", content=f'{{"input": "{MARK}').status_code == 400
        self.post("/v1/embeddings", {"model": "default", "input": [MARK]})

    def remember(self) -> None:
        self.post("/v1/memories", {"memories": [{"text": f"My secret is {MARK}"}]}, 201)
        self.post("/v1/memories/search", {"query": MARK})
        agent = {"name": MARK, "instructions": MARK, "model": "default"}
        self.post("/v1/agents", agent, 201)
        self.post("/v1/agents", agent, 409)
        self.post("/v1/responses", {"model": f"agent/{MARK}", "input": MARK})
        file = {"file": (f"{MARK}.txt", MARK.encode())}
        assert self.http.post("/v1/files", files=file, data={"purpose": "user_data"}).status_code == 200
        schedule = {"name": MARK, "cron": "* * * * *", "work": {"kind": "turn", "model": "default", "input": MARK}}
        self.http.post("/v1/schedules", json=schedule)

    def receive_webhooks(self, url: str) -> None:
        endpoint = self.post("/v1/webhook_endpoints", {"url": url, "event_types": ["*"], "name": MARK})
        self.secrets.add(endpoint["signing_secret"])
        self.post("/v1/responses", {"model": "default", "input": MARK, "background": True})
        wait_until(lambda: self.deliveries_failed(), 30)

    def deliveries_failed(self) -> bool:
        return any(delivery["attempts"] for delivery in self.http.get("/v1/webhook_deliveries").json()["data"])


def test_no_secret_and_no_content_is_logged_at_debug(
    installation: Up, receiver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an installation all of whose processes an operator has set to DEBUG while they run
    monkeypatch.setattr("ops.logs.configure_logging", lambda **_: None)
    changed = sangha("log-level", "debug", "--minutes", "10", "--data-dir", str(installation.home))
    assert changed.exit_code == 0, changed.output
    wait_until(lambda: all("Logging from level DEBUG on" in log for log in logs(installation, PROCESSES)), 10)
    # When a customer logs in, makes keys, runs turns that end and that fail, and receives webhooks
    with httpx.Client(base_url=installation.address, timeout=60) as connection:
        client = Client(connection)
        client.log_in()
        client.manage_keys()
        client.run_turns(receiver)
        client.remember()
        client.receive_webhooks(receiver)
    installation.stop()
    # Then nothing of it is in any log or on the console
    output = [*logs(installation), installation.text]
    leaks = [
        line for text in output for line in text.splitlines() if any(each in line for each in (MARK, *client.secrets))
    ]
    assert leaks == []
    # And the lines of Sangha's processes are ECS, with access lines and the errors of the failed jobs
    lines = [json.loads(line) for log in logs(installation, PROCESSES) for line in log.splitlines()]
    for line in lines:
        check_line(line)
    assert any(line.get("url.path") == "/v1/responses" and line["http.response.status_code"] == 200 for line in lines)
    assert any(line["log.level"] == "debug" and line.get("labels.job_kind") == "turn.run" for line in lines)
    assert any("will be retried" in line["message"] for line in lines)


def logs(installation: Up, names: tuple[str, ...] = ("*",)) -> list[str]:
    """Return the texts of log files."""
    return [
        file.read_text(errors="replace") for name in names for file in (installation.home / "logs").glob(f"{name}.log")
    ]

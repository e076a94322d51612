"""A newer version's migration adds a column to every table while this version serves requests and runs jobs."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from bench.harness.processes import ConfiguredWorker, changed
from models.platform.database import Database
from models.platform.ids import new_id
from models.platform.settings import Settings
from ops.embedded_servers import Postgres, running_server
from pipelines.schedules.firing import fire_due
from tests.databases import add_columns, bare_database, migrate_beyond
from tests.web.api_client import run_server
from web.app import build

#: psycopg prepares a statement when a connection executes it for the sixth time.
ROUNDS = 7


@pytest.fixture
def own_settings(settings: Settings, postgres: Postgres) -> Iterator[Settings]:
    """Settings with a database and a Redis database of their own."""
    with bare_database(postgres) as database_url:
        migrate_beyond(database_url)
        redis_url = f"{settings.redis_address}?db=6"
        yield settings.model_copy(update={"database_url": database_url, "redis_url": redis_url})


@pytest.fixture
def client(own_settings: Settings, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of the whole application, with a worker process."""
    for name in ("run", "logs"):
        (tmp_path / name).mkdir()
    settings = changed(own_settings, script="tokens=5,rate=0")
    worker = ConfiguredWorker("worker", settings, ["inference", "memory", "recall"])
    app = build(own_settings)
    with running_server(worker, tmp_path / "run", tmp_path / "logs"), run_server(app) as (_, client):
        yield client


class Journey:
    """Requests of one user that run most statements of the application."""

    def __init__(self, client: httpx.Client, settings: Settings, database: Database) -> None:
        self.client = client
        self.settings = settings
        self.database = database
        self.rounds = count()
        self.login = {"email": f"{new_id('me')}@example.com", "password": "a long password of the tests"}
        self._send("POST", "/signup", self.login)
        self.client.headers["authorization"] = f"Bearer {self._send('POST', '/login', self.login)['token']}"

    def run(self) -> None:
        """Send each request once."""
        self._turns()
        self._memories(next(self.rounds))
        self._schedules()
        self._account()

    def _turns(self) -> None:
        conversation = self._send("POST", "/v1/conversations", {"metadata": {"a": "b"}})["id"]
        self._send("POST", f"/v1/conversations/{conversation}", {"metadata": {"a": "c"}})
        turn = self._send("POST", "/v1/responses", {"input": "hello", "conversation": conversation})
        assert turn["status"] == "completed", turn
        next_turn = self._send("POST", "/v1/responses", {"input": "again", "previous_response_id": turn["id"]})
        assert next_turn["status"] == "completed", next_turn
        for path in ("conversations/{}", "conversations/{}/items"):
            self._send("GET", f"/v1/{path.format(conversation)}")
        for path in ("responses/{}", "responses/{}/input_items"):
            self._send("GET", f"/v1/{path.format(turn['id'])}")
        for path in (f"jobs/{turn['job_id']}", "jobs", "models"):
            self._send("GET", f"/v1/{path}")
        stream = self.client.get(f"/v1/responses/{turn['id']}?stream=true")
        assert "event: response.completed" in stream.text
        self._send("POST", "/v1/responses/input_tokens", {"input": "hello"})
        self._send("DELETE", f"/v1/responses/{next_turn['id']}")

    def _memories(self, number: int) -> None:
        (memory,) = self._send("POST", "/v1/memories", {"text": f"I like tea number {number}"})["data"]
        assert self._send("POST", "/v1/memories/search", {"query": "Which tea?"})["data"]
        self._send("PATCH", f"/v1/memories/{memory['id']}", {"text": f"I like coffee number {number}"})
        self._send("GET", "/v1/memories")
        self._send("GET", f"/v1/memories/{memory['id']}")
        self._send("GET", "/v1/meditations")

    def _schedules(self) -> None:
        trigger, work = {"type": "interval", "seconds": 3600}, {"kind": "turn", "request": {"input": "hello"}}
        schedule = self._send("POST", "/v1/schedules", {"name": "hourly", "trigger": trigger, "work": work})["id"]
        self._send("PATCH", f"/v1/schedules/{schedule}", {"name": "each hour"})
        with self.database.connection() as connection:
            connection.execute("UPDATE schedules SET next_fire_at = now() WHERE id = %s", (schedule,))
        assert list(fire_due(self.database, self.settings, ["turn"]))
        assert self._send("GET", f"/v1/schedules/{schedule}")["last_firing"]
        assert self._send("GET", f"/v1/schedules/{schedule}/firings")["data"]
        self._send("GET", "/v1/schedules")
        self._send("DELETE", f"/v1/schedules/{schedule}")

    def _account(self) -> None:
        self._send("POST", "/login", self.login)
        key = self._send("POST", "/v1/api_keys", {"name": "a key", "scopes": ["read"]})
        self._send("PATCH", f"/v1/api_keys/{key['id']}", {"name": "another name"})
        bearer = {"authorization": f"Bearer {key['key']}"}
        assert self.client.get("/v1/models", headers=bearer).status_code == 200
        self._send("DELETE", f"/v1/api_keys/{key['id']}")
        paths = ("me", "me/sessions", "account", "account/members", "account/invitations", "api_keys", "audit_events")
        for path in paths:
            self._send("GET", f"/v1/{path}")

    def _send(self, method: str, path: str, body: object = None) -> dict:
        answer = self.client.request(method, path, json=body)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()


def test_requests_and_jobs_continue_when_every_table_gains_a_column(client, own_settings):
    # Given processes that have prepared their statements
    database = Database(own_settings.postgres_dsn)
    journey = Journey(client, own_settings, database)
    for _ in range(ROUNDS):
        journey.run()
    # When a migration adds a column to every table
    add_columns(own_settings.postgres_dsn, "of_a_still_newer_version")
    # Then all requests are answered as before
    for _ in range(ROUNDS):
        journey.run()
    database.close()

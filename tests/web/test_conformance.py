"""Check the web application against its OpenAPI document: no 5xx, no answer that the document does not describe, and no
request that keeps the event loop busy.

Schemathesis generates the requests from the route table, the same ones in each run. The application has a database of
its own, since some requests change settings for all accounts, and a worker, so that turns end.
"""

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as effort
from schemathesis import Case, GenerationMode
from schemathesis.config import SchemathesisConfig

from bench.harness.processes import ConfiguredWorker
from models.platform.database import Database
from models.platform.ids import new_id
from models.platform.settings import Settings
from ops.embedded_servers import Postgres, running_server
from tests.databases import bare_database, migrate_beyond
from tests.web.api_client import ApiUser, run_server
from tests.web.busy_loop import MOST, BusyLoop, watch_loop
from web.api.system.openapi import document
from web.app import build
from web.routes import ROUTES

CONFIG = SchemathesisConfig.from_dict(
    {
        "seed": 1,
        "request-timeout": 20,
        "checks": {
            # The document cannot say which ids exist, which e-mail addresses are free and which passwords are common.
            "positive_data_acceptance": {"enabled": False},
            # A value above a limit may be rejected for its size.
            "negative_data_rejection": {"expected-statuses": [400, 401, 403, 404, 409, 413, 422, 429]},
            # test_rights.py checks this for every route and for more kinds of callers.
            "ignored_auth": {"enabled": False},
        },
    }
)


@schemathesis.serializer("application/x-ndjson")
def lines(ctx: Any, value: Any) -> bytes:
    """Serialize a generated body as JSON Lines: strings as they are, other values as an invalid line."""
    return value.encode("utf-8", "replace") if isinstance(value, str) else f"[{value!r}]".encode("utf-8", "replace")


API = schemathesis.openapi.from_dict(document(ROUTES), config=CONFIG)


@pytest.fixture(scope="module")
def isolated_settings(settings: Settings, postgres: Postgres) -> Iterator[Settings]:
    """Settings with a database and a Redis database of their own, on the servers of the test session."""
    with bare_database(postgres) as database_url:
        migrate_beyond(database_url)
        redis_url = f"{settings.redis_address}?db=7"
        yield settings.model_copy(
            update={
                "database_url": database_url,
                "redis_url": redis_url,
                "visits_per_minute": 1_000_000,
                "trusted_proxies": "192.0.2.0/24",  # otherwise the machine itself reads metrics without authentication
            }
        )


@pytest.fixture(scope="module")
def api(isolated_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the whole application, with a worker process."""
    folder = tmp_path_factory.mktemp("conformance")
    for name in ("run", "logs"):
        (folder / name).mkdir()
    app = build(isolated_settings)
    worker = ConfiguredWorker("worker", isolated_settings, ["inference", "memory", "recall", "tools"])
    with running_server(worker, folder / "run", folder / "logs"), run_server(app) as (_, client):
        client.app = app  # type: ignore[attr-defined]
        yield client


@pytest.fixture(scope="module")
def busy_loop(api: httpx.Client) -> Iterator[BusyLoop]:
    """The event loop of the application."""
    with watch_loop(api) as busy_loop:
        yield busy_loop


@pytest.fixture(scope="module")
def database(isolated_settings: Settings) -> Iterator[Database]:
    """The database of `isolated_settings`."""
    database = Database(isolated_settings.postgres_dsn)
    yield database
    database.close()


@pytest.fixture
def operator(user: ApiUser) -> ApiUser:
    """A user who is an operator and has verified their e-mail address."""
    with user.database.connection() as connection:
        connection.execute(
            "UPDATE users SET operator = true, email_verified_at = now() WHERE id = %s", (user.caller.user_id,)
        )
    return user


class ExistingResources:
    """Resources of the user that a path can name, created when first needed."""

    def __init__(self, user: ApiUser) -> None:
        self.user = user
        self.use_existing = cycle([False, True])
        self.idempotency_keys: set[object] = set()
        self.requests = 0
        self.ids = {
            "account_id": user.caller.account_id,
            "user_id": user.caller.user_id,
            "model": "default",
            "name": "index.css",
        }

    def fill_path(self, case: Case) -> None:
        """Put the ids of existing resources into the path of every second valid request."""
        if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE or not next(self.use_existing):
            return
        for name in case.path_parameters:
            if (id_ := self.ids.get(name) or self._create(name)) is not None:
                case.path_parameters[name] = self.ids[name] = id_

    def should_skip(self) -> bool:
        """Return whether to skip this request. A turn's body alone makes a thousand: after 100, one in five is sent."""
        self.requests += 1
        return self.requests > 100 and self.requests % 5 > 0

    def replace_used_idempotency_key(self, case: Case) -> None:
        """Replace a repeated Idempotency-Key, which could only be answered with `idempotency_key_reused`."""
        key = (case.headers or {}).get("Idempotency-Key")
        if key is not None and key in self.idempotency_keys:
            case.headers["Idempotency-Key"] = key = new_id("key")
        self.idempotency_keys.add(key)

    def _create(self, name: str) -> str | None:
        if name == "response_id":
            return self._post("/v1/responses", {"input": "hello"})["id"]
        if name == "job_id":
            return self._post("/v1/responses", {"input": "hello"})["job_id"]
        if name == "conversation_id":
            message = {"type": "message", "role": "user", "content": "hello"}
            return self._post("/v1/conversations", {"items": [message]})["id"]
        if name == "schedule_id":
            trigger, work = {"type": "interval", "seconds": 3600}, {"kind": "turn", "request": {"input": "hello"}}
            return self._post("/v1/schedules", {"name": "hourly", "trigger": trigger, "work": work})["id"]
        if name == "server_id":
            return self._post("/v1/mcp_servers", {"label": "tests", "url": "https://mcp.example.com/"})["id"]
        if name == "key_id":
            return self._post("/v1/api_keys", {"name": "a key", "scopes": ["read"]})["id"]
        if name == "memory_id":
            return self._post("/v1/memories", {"text": "hello"})["data"][0]["id"]
        if name == "invitation_id":
            return self._post("/v1/account/invitations", {"email": "friend@example.com", "role": "member"})["id"]
        return None

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.user.request("POST", path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()


@pytest.fixture
def existing_resources(operator: ApiUser) -> ExistingResources:
    """Resources of the operator."""
    return ExistingResources(operator)


@API.parametrize()
@effort(
    max_examples=6,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_every_answer_conforms_to_the_openapi_document(case: Case, api, busy_loop, operator, existing_resources):
    if existing_resources.should_skip():
        return
    # Given a generated request of an operator, every second one to an existing resource
    existing_resources.fill_path(case)
    existing_resources.replace_used_idempotency_key(case)
    sent = {"base_url": str(api.base_url), "headers": {"authorization": f"Bearer {operator.token}"}}
    # When it is sent, then the answer conforms to the document
    busy = busy_loop.measure(lambda: case.call_and_validate(**sent))
    # And it has kept the event loop busy for a moment at most, unless it was the first to import and compile something
    assert busy < MOST or busy_loop.measure(lambda: case.call(**sent)) < MOST

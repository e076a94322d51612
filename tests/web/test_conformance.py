"""What the door answers to whatever its description allows or forbids: never a 5xx, never off the description.

Schemathesis makes the requests from the route table, the same ones in each run. Behind the door stand a database of its
own, since some of what is asked changes things for all, and a worker, so that turns end.
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

from models.platform.database import Database
from models.platform.ids import new_id
from models.platform.migrate import migrate
from models.platform.settings import Settings
from ops.servers import Postgres, running_server
from ops.services import WorkerProcess
from tests.databases import bare_database
from tests.journeys.stack import named
from tests.web.api_client import ApiUser, run_server
from web.app import build
from web.description.openapi import document
from web.routes import ROUTES

CONFIG = SchemathesisConfig.from_dict(
    {
        "seed": 1,
        "request-timeout": 20,
        "checks": {
            # A description can't say which ids exist, which addresses are free and which passwords are common.
            "positive_data_acceptance": {"enabled": False},
            # What breaks a bound may be refused for its size.
            "negative_data_rejection": {"expected-statuses": [400, 401, 403, 404, 409, 413, 422, 429]},
            # The matrix of rights asks this of every route, and of more people.
            "ignored_auth": {"enabled": False},
        },
    }
)


@schemathesis.serializer("application/x-ndjson")
def lines(ctx: Any, value: Any) -> bytes:
    """What is sent where JSON Lines are expected: text, or what is none."""
    return value.encode("utf-8", "replace") if isinstance(value, str) else f"[{value!r}]".encode("utf-8", "replace")


API = schemathesis.openapi.from_dict(document(ROUTES), config=CONFIG)


@pytest.fixture(scope="module")
def apart(settings: Settings, postgres: Postgres) -> Iterator[Settings]:
    """Settings of an installation that shares the servers with the other tests, and nothing on them."""
    with bare_database(postgres) as database_url:
        migrate(database_url)
        redis_url = f"{settings.redis_address}?db=7"
        yield settings.model_copy(
            update={"database_url": database_url, "redis_url": redis_url, "visits_per_minute": 1_000_000}
        )


@pytest.fixture(scope="module")
def api(apart: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The whole door, with a worker behind it."""
    folder = tmp_path_factory.mktemp("conformance")
    for name in ("run", "logs"):
        (folder / name).mkdir()
    app = build(apart)
    worker = named("worker", WorkerProcess("worker", apart, ["inference", "memory", "recall"]), apart)
    with running_server(worker, folder / "run", folder / "logs"), run_server(app) as (_, client):
        client.app = app  # type: ignore[attr-defined]
        yield client


@pytest.fixture(scope="module")
def database(apart: Settings) -> Iterator[Database]:
    """The installation's database."""
    database = Database(apart.postgres_dsn)
    yield database
    database.close()


@pytest.fixture
def operator(user: ApiUser) -> ApiUser:
    """A visitor who may go everywhere."""
    with user.database.connection() as connection:
        connection.execute(
            "UPDATE users SET operator = true, email_verified_at = now() WHERE id = %s", (user.caller.user_id,)
        )
    return user


class Belongings:
    """Things of the visitor's that a path can name, made when they are first asked for."""

    def __init__(self, user: ApiUser) -> None:
        self.user = user
        self.turns = cycle([False, True])
        self.keys: set[object] = set()
        self.made = 0
        self.known = {
            "account_id": user.caller.account_id,
            "user_id": user.caller.user_id,
            "model": "default",
            "name": "index.css",
        }

    def place(self, case: Case) -> None:
        """Let the path of every second request that keeps to the description name what there is."""
        if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE or not next(self.turns):
            return
        for name in case.path_parameters:
            if (found := self.known.get(name) or self._make(name)) is not None:
                case.path_parameters[name] = self.known[name] = found

    def is_one_too_many(self) -> bool:
        """Whether to pass over a request. The body of a turn alone makes a thousand: of such, one in five is sent."""
        self.made += 1
        return self.made > 100 and self.made % 5 > 0

    def freshen(self, case: Case) -> None:
        """Let no Idempotency-Key come again: all that it could say is that the body is another one."""
        key = (case.headers or {}).get("Idempotency-Key")
        if key is not None and key in self.keys:
            case.headers["Idempotency-Key"] = key = new_id("key")
        self.keys.add(key)

    def _make(self, name: str) -> str | None:
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
def belongings(operator: ApiUser) -> Belongings:
    """What the visitor has."""
    return Belongings(operator)


@API.parametrize()
@effort(
    max_examples=6,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_no_answer_is_a_5xx_or_off_its_description(case: Case, api, operator, belongings):
    if belongings.is_one_too_many():
        return
    # Given anything that somebody sends who has logged in, every second time to a thing that is there
    belongings.place(case)
    belongings.freshen(case)
    headers = {"authorization": f"Bearer {operator.token}"}
    # When it is sent, then the answer is one that the description foresees
    case.call_and_validate(base_url=str(api.base_url), headers=headers)

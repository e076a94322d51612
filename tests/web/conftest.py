"""A real web process in a thread, for tests of the door."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from models.accounts import Caller, Role
from models.database import Database
from models.settings import Settings
from pipelines.accounts.tokens import Tokens
from tests.web.visiting import Visitor, running, whole_door
from web.app import build
from web.entrance.gate import Admission, Knock, bearer
from web.routing import Row

Serve = Callable[[Starlette], httpx.Client]

ALICE = Caller("user_alice", "acct_alice", Role.OWNER, session_id="sess_alice")


class TrustingGate:
    """A gate that has no database: it takes a token's word."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    def admit(self, knock: Knock) -> Admission:
        """Check the signature and the rights."""
        if knock.rights.public:
            return Admission()
        caller = self.tokens.verify(bearer(knock.headers))
        knock.rights.check(caller)
        return Admission(caller)


@pytest.fixture
def run_app():
    """`running`, for tests that stop the server themselves."""
    return running


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(app)` → a client of the running application, stopped at the end of the test."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(running(app))[1]


@pytest.fixture
def offline(tmp_path: Path) -> Settings:
    """Settings whose servers do not run."""
    return Settings(data_dir=tmp_path, engine="scripted", secret_key="a secret of the tests")


@pytest.fixture
def door(offline: Settings, serve: Serve) -> Callable[..., httpx.Client]:
    """`door(Row(…), …)` → a client of an application with these routes and no servers behind it."""

    def open_door(*rows: Row) -> httpx.Client:
        app = build(offline, rows)
        client = serve(app)
        app.state.platform.gate = TrustingGate(app.state.platform.tokens)
        client.headers["authorization"] = f"Bearer {app.state.platform.tokens.issue(ALICE)}"
        client.app = app  # type: ignore[attr-defined]
        return client

    return open_door


@pytest.fixture
def alice() -> Caller:
    """Whom the client of `door` speaks for."""
    return ALICE


@pytest.fixture(scope="module")
def house(settings: Settings) -> Iterator[httpx.Client]:
    """A client of the whole door, with the session's servers behind it."""
    with whole_door(settings) as client:
        yield client


@pytest.fixture
def visitor(house: httpx.Client, database: Database) -> Iterator[Visitor]:
    """Somebody with an account."""
    visitor = Visitor(house, database)
    yield visitor
    visitor.leave()


@pytest.fixture
def stranger(house: httpx.Client, database: Database) -> Iterator[Visitor]:
    """Somebody with another account."""
    stranger = Visitor(house, database)
    yield stranger
    stranger.leave()

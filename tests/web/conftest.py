"""Fixtures for tests of the web application: a real server in a thread, clients and users."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from models.access.auth_context import Credential
from models.accounts.accounts import Caller, Role
from models.platform.database import Database
from models.platform.settings import Settings
from pipelines.accounts.access_tokens import AccessTokens
from tests.web.api_client import ApiUser, app_client, run_server
from tests.web.known_models import KnownModels
from tests.web.principals import Principals
from web.access.gate import Admission, AuthRequest, bearer_credential
from web.api.routing import Route
from web.app import build

Serve = Callable[[Starlette], httpx.Client]

ALICE = Caller("user_alice", "acct_alice", Role.OWNER, session_id="sess_alice")


class TrustingGate:
    """A gate without a database: it trusts the claims of a token with a valid signature."""

    def __init__(self, tokens: AccessTokens) -> None:
        self.tokens = tokens

    def admit(self, request: AuthRequest) -> Admission:
        """Check the token's signature and the rights."""
        if request.rights.public:
            return Admission()
        caller = self.tokens.verify(bearer_credential(request.headers))
        request.rights.check(caller)
        return Admission(caller)

    def draw_body(self, admission: Admission, size: int) -> Admission:
        """Draw nothing."""
        return admission

    def draw_answer(self, admission: Admission, tokens: int) -> Admission:
        """Draw nothing."""
        return admission

    def give_back(self, admission: Admission) -> None:
        """Return nothing."""

    def find_ended(self, credentials: Sequence[Credential]) -> Collection[Credential]:
        """Return none."""
        return ()


@pytest.fixture
def run_app():
    """`run_server`, for tests that stop the server themselves."""
    return run_server


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(app)` → a client of the running application, stopped at the end of the test."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(run_server(app))[1]


@pytest.fixture
def offline_settings(tmp_path: Path) -> Settings:
    """Settings of servers that do not run."""
    return Settings(data_dir=tmp_path, engine="scripted", secret_key="a secret of the tests")


@pytest.fixture
def make_client(offline_settings: Settings, serve: Serve) -> Callable[..., httpx.Client]:
    """`make_client(Route(…), …)` → a client of an application with these routes and without Postgres and Redis."""

    def make_client(*routes: Route) -> httpx.Client:
        app = build(offline_settings, routes)
        client = serve(app)
        app.state.platform.gate = TrustingGate(app.state.platform.tokens)
        app.state.platform.serving = KnownModels(offline_settings)
        client.headers["authorization"] = f"Bearer {app.state.platform.tokens.issue(ALICE)}"
        client.app = app  # type: ignore[attr-defined]
        return client

    return make_client


@pytest.fixture
def alice() -> Caller:
    """The caller whose token the client of `make_client` sends."""
    return ALICE


@pytest.fixture(scope="module")
def api(settings: Settings) -> Iterator[httpx.Client]:
    """A client of the whole application on the session's servers."""
    with app_client(settings) as client:
        yield client


@pytest.fixture
def user(api: httpx.Client, database: Database) -> Iterator[ApiUser]:
    """A user with an account."""
    user = ApiUser(api, database)
    yield user
    user.delete_account()


@pytest.fixture
def operator(api: httpx.Client, database: Database) -> Iterator[ApiUser]:
    """A user who is an operator."""
    operator = ApiUser(api, database)
    with database.connection() as connection:
        connection.execute("UPDATE users SET operator = true WHERE id = %s", (operator.caller.user_id,))
    yield operator
    operator.delete_account()


@pytest.fixture
def other_user(api: httpx.Client, database: Database) -> Iterator[ApiUser]:
    """A user with another account."""
    other_user = ApiUser(api, database)
    yield other_user
    other_user.delete_account()


@pytest.fixture
def principals(api: httpx.Client, database: Database, settings: Settings) -> Iterator[Principals]:
    """Callers of one account with each role and key scope, and of other accounts."""
    principals = Principals(api, database, settings)
    yield principals
    principals.delete(database)

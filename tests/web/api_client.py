"""Users of the whole web application, which runs in a thread on real servers without a worker."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
from starlette.applications import Starlette

from models.access import sessions
from models.accounts import accounts
from models.accounts.accounts import Caller, Role
from models.platform.database import Database
from models.platform.ids import new_id
from models.platform.settings import Settings
from tests.accounts import delete_accounts
from web.app import build
from web.server import Server, bind, configure


class ThreadedServer(Server):
    """A server that sets an event when it listens."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(configure(app))
        self.listening = threading.Event()

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self.listening.set()


@contextmanager
def run_server(app: Starlette) -> Iterator[tuple[ThreadedServer, httpx.Client]]:
    """Run the application on a free port; yields the server and a client of it."""
    listener = bind(Settings(port=0))
    server = ThreadedServer(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.start()
    try:
        assert server.listening.wait(20)
        with httpx.Client(base_url=base_url, timeout=20) as client:
            yield server, client
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def app_client(settings: Settings) -> Iterator[httpx.Client]:
    """Yield a client of the whole application, with a queue of its own that no other test's worker reads."""
    app = build(settings.model_copy(update={"broker_url": f"{settings.redis_address}?db=9"}))
    with run_server(app) as (_, client):
        client.app = app  # type: ignore[attr-defined]
        yield client


class ApiUser:
    """A user with an account and an access token."""

    def __init__(self, client: httpx.Client, database: Database) -> None:
        with database.transaction() as connection:
            member = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
            session_id = sessions.create(connection, member.user_id)
        self.client = client
        self.database = database
        self.caller = Caller(member.user_id, member.account_id, Role.OWNER, session_id=session_id)
        self.token = client.app.state.platform.tokens.issue(self.caller)  # type: ignore[attr-defined]

    def request(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any):
        """Send one request with the user's token."""
        sent = {"authorization": f"Bearer {self.token}", **(headers or {})}
        return self.client.request(method, path, headers=sent, **options)

    def create_response(self, **body: Any) -> dict[str, Any]:
        """Create a background response; returns the response object."""
        answer = self.request("POST", "/v1/responses", json={"input": "hello", "background": True, **body})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def jobs(self) -> list[dict[str, Any]]:
        """List the account's jobs, newest first."""
        return self.request("GET", "/v1/jobs").json()["data"]

    def delete_account(self) -> None:
        """Delete the account and everything in it."""
        delete_accounts(self.database, [self.caller.account_id])


def assert_error(answer: httpx.Response, status: int, *, param: str | None = None, code: str | None = None) -> str:
    """Assert the status and the error envelope without internals; returns the error's message."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text
    if param is not None:
        assert error["param"] == param, error
    if code is not None:
        assert error["code"] == code, error
    return str(error["message"])

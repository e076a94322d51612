"""A real web process in a thread, for tests of the door."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from models.accounts import Caller, Role
from models.settings import Settings
from web.app import build
from web.routing import Row
from web.server import Server, bind, configure

Serve = Callable[[Starlette], httpx.Client]

ALICE = Caller("user_alice", "acct_alice", Role.OWNER)


class ThreadedServer(Server):
    """The server, telling when it listens."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(configure(app))
        self.listening = threading.Event()

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self.listening.set()


@contextmanager
def running(app: Starlette) -> Iterator[tuple[ThreadedServer, httpx.Client]]:
    """The application on a free port, and a client to it."""
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
        client.headers["authorization"] = f"Bearer {app.state.platform.tokens.issue(ALICE)}"
        client.app = app  # type: ignore[attr-defined]
        return client

    return open_door


@pytest.fixture
def alice() -> Caller:
    """Whom the client of `door` speaks for."""
    return ALICE

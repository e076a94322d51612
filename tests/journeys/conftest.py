"""Installations for these tests: one a broker, shared by all, with the workers that each test starts."""

from collections.abc import Iterator

import psutil
import pytest

from models.platform.ids import new_id
from tests.journeys.stack import Person, Servers, Stack


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers that may be killed. Nothing of them stays behind."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    servers = Servers(tmp_path_factory.mktemp("journeys"))
    try:
        yield servers
    finally:
        servers.end_all()
    assert not [process for process in psutil.Process().children(recursive=True) if not before & family(process)]


def family(process: psutil.Process) -> set[int]:
    """The pids of a process and of all whose child it is: a server that stood before has new sessions now."""
    return {process.pid, *(parent.pid for parent in process.parents())}


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def installation(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Stack]:
    """An installation on each broker in turn; `ON_REDIS` marks what has nothing to do with the broker."""
    stack = Stack(servers, servers.home / new_id("with"), request.param)
    try:
        yield stack
    finally:
        stack.close()


@pytest.fixture
def stack(installation: Stack) -> Iterator[Stack]:
    """The installation, all of it alive but for its workers: whatever the test before has killed lives again."""
    for name in ("web-a", "web-b"):
        installation.web(name)
    installation.scheduler()
    try:
        yield installation
    finally:
        installation.end_workers()


@pytest.fixture
def person(stack: Stack) -> Person:
    """Somebody with a new account."""
    return Person(stack)

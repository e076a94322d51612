"""Installations for these tests: one for each broker, shared by all tests, with the workers that each test starts."""

from collections.abc import Iterator

import psutil
import pytest
from openai import OpenAI

from bench.harness.stack import Servers
from models.platform.ids import new_id
from tests.journeys.stack import AccountOwner, Installation, openai_client

#: A process that other tests start, as their web applications need it.
GRAMMAR_CHILD = "pipelines.inference.grammars.child"


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers that tests may kill. None of their processes may remain."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    servers = Servers(tmp_path_factory.mktemp("journeys"))
    try:
        yield servers
    finally:
        servers.stop()
    left = [process for process in psutil.Process().children(recursive=True) if not before & ancestry(process)]
    assert not [process for process in left if GRAMMAR_CHILD not in process.cmdline()]


def ancestry(process: psutil.Process) -> set[int]:
    """Return the pids of a process and its ancestors: earlier servers have new child processes by now."""
    return {process.pid, *(parent.pid for parent in process.parents())}


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def installation(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Installation]:
    """An installation over each broker in turn; `ON_REDIS` marks tests that do not depend on the broker."""
    installation = Installation(servers, servers.folder / new_id("with"), request.param)
    try:
        yield installation
    finally:
        installation.close()


@pytest.fixture
def stack(installation: Installation) -> Iterator[Installation]:
    """The installation without workers; processes that an earlier test killed are started again."""
    for name in ("web-a", "web-b"):
        installation.start_web(name)
    installation.start_scheduler()
    try:
        yield installation
    finally:
        installation.kill_workers()


@pytest.fixture
def user(stack: Installation) -> AccountOwner:
    """The owner of a new account."""
    return AccountOwner(stack)


@pytest.fixture(scope="module")
def scripted_installation(installation: Installation) -> Installation:
    """An installation whose engine answers at once; for the input "slowly" it stops at the fifth token."""
    installation.start_web("web-a")
    installation.start_scheduler()
    installation.start_worker("tokens=20,rate=0,hang_at=5,trigger=slowly")
    return installation


@pytest.fixture
def client(scripted_installation: Installation) -> Iterator[OpenAI]:
    """The official client with a new account."""
    with openai_client(scripted_installation, AccountOwner(scripted_installation)) as client:
        yield client

"""One installation for all clients, with the scripted engine."""

from collections.abc import Iterator

import pytest

from bench.harness.stack import Servers
from models.platform.ids import new_id
from tests.journeys.stack import AccountOwner, Installation


@pytest.fixture(scope="module")
def clients_installation(servers: Servers) -> Iterator[Installation]:
    """An installation whose engine answers at once, but for a question with `slowly` in it."""
    installation = Installation(servers, servers.folder / new_id("clients"), "redis")
    try:
        installation.start_web()
        installation.start_scheduler()
        installation.start_worker("tokens=20,rate=0,slow=10", "inference", "memory")
        yield installation
    finally:
        installation.close()


@pytest.fixture(scope="module")
def address(clients_installation: Installation) -> str:
    """The base URL of the API."""
    return f"{clients_installation.addresses()[0]}/v1"


@pytest.fixture
def key(clients_installation: Installation) -> str:
    """An API key of a new account, with the scopes that clients need."""
    owner = AccountOwner(clients_installation)
    created = owner.request("POST", "/v1/api_keys", json={"name": "clients", "scopes": ["inference", "read", "write"]})
    assert created.status_code == 201, created.text
    return str(created.json()["key"])

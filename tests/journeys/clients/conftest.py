"""One installation for all clients, with the scripted engine."""

from collections.abc import Iterator

import pytest

from bench.harness.stack import Servers
from models.platform.ids import new_id
from tests.journeys.shop import ALLOW, Shop, serve_shop
from tests.journeys.stack import AccountOwner, Installation


@pytest.fixture(scope="module")
def clients_installation(servers: Servers) -> Iterator[Installation]:
    """An installation whose engine answers at once, but for a question with `slowly` in it."""
    installation = Installation(servers, servers.folder / new_id("clients"), "redis")
    try:
        installation.start_web()
        installation.start_scheduler()
        installation.start_worker("tokens=20,rate=0,slow=10", "inference", "memory")
        installation.start_worker("", "tools", **ALLOW)
        yield installation
    finally:
        installation.close()


@pytest.fixture(scope="module")
def address(clients_installation: Installation) -> str:
    """The base URL of the API."""
    return f"{clients_installation.addresses()[0]}/v1"


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """An MCP server with the tool `buy`."""
    with serve_shop() as shop:
        yield shop


@pytest.fixture
def key(clients_installation: Installation, shop: Shop) -> str:
    """An API key with the scopes that clients need, of a new account with the agent `buyer`."""
    owner = AccountOwner(clients_installation)
    agent = owner.request("POST", "/v1/agents", json={"name": "buyer", "tools": [shop.tool], "approval": "never"})
    assert agent.status_code == 201, agent.text
    created = owner.request("POST", "/v1/api_keys", json={"name": "clients", "scopes": ["inference", "read", "write"]})
    assert created.status_code == 201, created.text
    return str(created.json()["key"])

"""What a Redis server reports about evictions and persistence."""

from collections.abc import Iterator

import pytest
import redis

from models.platform.redis_client import connect
from models.platform.redis_durability import RedisDurability, read_durability
from ops.embedded_servers import Valkey, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey server whose configuration the tests change."""
    folder = tmp_path_factory.mktemp("durability")
    for name in ("run", "logs"):
        (folder / name).mkdir()
    server = Valkey(folder / "valkey", folder)
    with running_server(server, folder / "run", folder / "logs"):
        with connect(server.url) as client:
            client.config_set("shutdown-on-sigterm", "now nosave force")  # also while it writes its first log
        yield server


@pytest.fixture
def client(server: Valkey) -> Iterator[redis.Redis]:
    with connect(server.url) as client:
        yield client


@pytest.mark.parametrize(
    ("maxmemory", "policy", "appendonly", "save", "evicts", "persisted"),
    [
        ("100mb", "volatile-lru", "yes", "", True, True),
        ("100mb", "noeviction", "no", "", False, False),
        ("0", "allkeys-lru", "no", "3600 1", False, True),
        ("8gb", "noeviction", "yes", "", False, True),
    ],
)
def test_the_durability_is_read(client, maxmemory, policy, appendonly, save, evicts, persisted):
    # Given a server with this configuration
    for name, value in [
        ("maxmemory", maxmemory),
        ("maxmemory-policy", policy),
        ("appendonly", appendonly),
        ("save", save),
    ]:
        client.config_set(name, value)
    # When its durability is read
    durability = read_durability(client)
    # Then it says what may be lost
    assert (durability.policy, durability.evicts, durability.persisted) == (policy, evicts, persisted)
    assert len(durability.warnings()) == evicts + (not persisted)


def test_what_the_server_forbids_is_unknown(server, client):
    """Managed services forbid `CONFIG`, and some `INFO`."""
    client.execute_command("ACL", "SETUSER", "limited", "on", ">secret", "~*", "+ping", "-info", "-config")

    with redis.Redis(unix_socket_path=str(server.socket), username="limited", password="secret", protocol=2) as limited:
        durability = read_durability(limited)

    assert durability == RedisDurability(None, False, None)
    assert durability.warnings() == []

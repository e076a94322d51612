"""The log level of running processes."""

import logging
from collections.abc import Iterator

import pytest
import redis

from models.platform.log_levels import KEY, OWN_LOGGERS, LogLevelWatch, current_level, set_level, store_level
from models.platform.settings import Settings

LIBRARIES = ("httpx2", "stripe", "pika", "mcp.client")


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    """Restore all levels."""
    names = [None, *OWN_LOGGERS, "urllib3", "httpx", "httpcore", "yoyo", "dramatiq", "mcp", "client", *LIBRARIES]
    before = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def stored(redis_client: redis.Redis) -> Iterator[redis.Redis]:
    """A Redis without a stored level."""
    redis_client.delete(KEY)
    yield redis_client
    redis_client.delete(KEY)


def test_libraries_do_not_log_debug_messages() -> None:
    set_level("DEBUG")

    assert all(logging.getLogger(f"{name}.part").isEnabledFor(logging.DEBUG) for name in OWN_LOGGERS)
    assert not any(logging.getLogger(name).isEnabledFor(logging.INFO) for name in LIBRARIES)
    assert not logging.getLogger("another").isEnabledFor(logging.DEBUG)


def test_level_of_an_operator_holds_until_it_expires(stored: redis.Redis) -> None:
    # Given a process that logs from WARNING on
    set_level("WARNING")
    watch = LogLevelWatch(Settings())
    # When an operator stores a level
    store_level(stored, "DEBUG", minutes=5)
    watch.look(stored)
    # Then the process logs from that one on, and Redis forgets it in time
    assert current_level() == "DEBUG"
    assert 290 < stored.ttl(KEY) <= 300
    # When it has expired
    stored.pexpire(KEY, 0)
    watch.look(stored)
    # Then the process logs as configured
    assert current_level() == "WARNING"


def test_operator_can_return_to_the_configured_level_at_once(stored: redis.Redis) -> None:
    set_level("INFO")
    watch = LogLevelWatch(Settings())
    store_level(stored, "ERROR", minutes=5)
    watch.look(stored)

    store_level(stored, None, minutes=5)
    watch.look(stored)

    assert current_level() == "INFO"


def test_level_stays_while_redis_is_unavailable(stored: redis.Redis) -> None:
    set_level("INFO")
    watch = LogLevelWatch(Settings())
    store_level(stored, "DEBUG", minutes=5)
    watch.look(stored)

    watch.look(redis.Redis(port=1))

    assert current_level() == "DEBUG"


def test_unknown_stored_level_is_ignored(stored: redis.Redis) -> None:
    set_level("INFO")
    stored.set(KEY, "LOUD")

    LogLevelWatch(Settings()).look(stored)

    assert current_level() == "INFO"

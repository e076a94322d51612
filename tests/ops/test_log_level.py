"""`sangha log-level` stores the level that all processes follow."""

from collections.abc import Iterator

import pytest
import redis

from models.platform.log_levels import KEY, stored_level
from models.platform.settings import Settings
from ops.exit_codes import UNAVAILABLE
from tests.ops.commands import sangha


@pytest.fixture
def stored(settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """The Redis that the command uses, without a level."""
    monkeypatch.setenv("SANGHA_REDIS_URL", settings.redis_address)
    monkeypatch.setattr("ops.logs.configure_logging", lambda **_: None)
    redis_client.delete(KEY)
    yield redis_client
    redis_client.delete(KEY)


def test_level_is_stored_for_some_minutes_and_shown(stored: redis.Redis) -> None:
    assert sangha("log-level").output == "Configured: INFO (SANGHA_LOG_LEVEL).\n"

    changed = sangha("log-level", "DEBUG", "--minutes", "5")

    assert changed.output == "All processes log from level DEBUG on within 2 s, for 5 minutes.\n"
    level = stored_level(stored)
    assert level is not None
    assert level[0] == "DEBUG"
    assert 290 < level[1] <= 300
    assert sangha("log-level").output == "All processes: DEBUG, for 5 more minutes.\n"


def test_default_ends_the_stored_level(stored: redis.Redis) -> None:
    sangha("log-level", "error")

    assert "their configured level" in sangha("log-level", "default").output
    assert stored_level(stored) is None


@pytest.mark.parametrize("arguments", [["loud"], ["debug", "--minutes", "0"], ["debug", "--minutes", "1441"]])
def test_invalid_arguments_change_nothing(stored: redis.Redis, arguments: list[str]) -> None:
    assert sangha("log-level", *arguments).exit_code == 2
    assert stored_level(stored) is None


def test_unreachable_redis_is_one_line(stored: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANGHA_REDIS_URL", "redis://127.0.0.1:1")

    result = sangha("log-level", "debug")

    assert result.exit_code == UNAVAILABLE
    assert "Redis cannot be reached" in result.output

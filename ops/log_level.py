"""`sangha log-level`: change the log level of all running processes for a while, or show it."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
import redis

from models.platform.errors import Unavailable
from models.platform.log_levels import INTERVAL, LevelName, store_level, stored_level
from models.platform.redis_client import connect
from models.platform.settings import Settings


def change_level(settings: Settings, level: LevelName | None, minutes: int) -> None:
    """Store the level and print what follows; None: every process returns to its own. Raises Unavailable."""
    with _client(settings) as client:
        store_level(client, level, minutes=minutes)
    if level is None:
        click.echo(f"All processes log from their configured level on within {INTERVAL:g} s.")
    else:
        click.echo(f"All processes log from level {level} on within {INTERVAL:g} s, for {minutes} minutes.")


def show_level(settings: Settings) -> None:
    """Print the level that holds for all processes. Raises Unavailable."""
    with _client(settings) as client:
        stored = stored_level(client)
    if stored is None:
        click.echo(f"Configured: {settings.log_level} (SANGHA_LOG_LEVEL).")
    else:
        click.echo(f"All processes: {stored[0]}, for {stored[1] / 60:.0f} more minutes.")


@contextmanager
def _client(settings: Settings) -> Iterator[redis.Redis]:
    with connect(settings.redis_address) as client:
        try:
            yield client
        except (redis.RedisError, OSError) as error:
            raise Unavailable(f"Redis cannot be reached: {error}") from error

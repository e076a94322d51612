"""Readiness checks and gauges of a web process."""

import logging
from collections import Counter
from functools import partial

import redis

from models.jobs import workers
from models.platform import metrics, process_gauges
from models.platform.code_check import check_code
from models.platform.database import Database, fetch_one
from models.platform.errors import Unavailable
from models.platform.migrate import pending_migrations
from models.platform.redis_durability import read_durability
from models.serving import breakers
from web.api.platform import Platform
from web.api.system import serving_gauges, state_gauges

log = logging.getLogger(__name__)


def install(platform: Platform) -> None:
    """Register the readiness checks and gauges of this process."""
    platform.checks["database"] = partial(check_database, platform.database)
    platform.checks["migrations"] = MigrationCheck(platform.database.dsn)
    platform.checks["release"] = partial(check_release, platform.database)
    platform.checks["redis"] = partial(check_redis, platform.redis)
    platform.checks["queue"] = platform.queue.check
    platform.facts["warnings"] = partial(redis_warnings, platform.redis)
    platform.facts["workers"] = partial(count_workers, platform.database)
    platform.facts["serving"] = partial(serving_problems, platform)
    read = platform.metrics.read
    read(metrics.OPEN_STREAMS, lambda: {(): len(platform.streams)})
    read(metrics.EVENT_LOOP_BUSY, lambda: {(): platform.watchdog.longest})
    read(metrics.SLOW_STREAMS, lambda: {(): platform.streams.count_slow()})
    process_gauges.install(platform.metrics, [platform.database, *platform.others])
    state_gauges.install(platform)
    serving_gauges.install(platform)


def check_database(database: Database) -> None:
    """Check that Postgres responds. Raises Unavailable."""
    with database.connection() as connection:
        fetch_one(connection, "SELECT 1")


def check_release(database: Database) -> None:
    """Check that the database works with this release. Raises ConfigurationError for one that is too old: no request
    may reach it, since it would misread what later releases write.
    """
    with database.connection() as connection:
        check_code(connection)


def check_redis(client: "redis.Redis") -> None:
    """Check that Redis responds. Raises redis.ConnectionError or redis.TimeoutError."""
    client.ping()


def redis_warnings(client: "redis.Redis") -> list[str]:
    """Return what Redis may lose by its configuration; nothing while it is unavailable."""
    try:
        return [f"Redis: {warning}" for warning in read_durability(client).warnings()]
    except redis.RedisError:
        return []


def count_workers(database: Database) -> dict[str, int]:
    """Count living workers by pool. For information: a web process accepts turns without any worker."""
    with database.connection() as connection:
        return dict(Counter(pool for worker in workers.list_live(connection) for pool in worker.pools))


def serving_problems(platform: Platform) -> dict[str, list[str]]:
    """Return the models without a live worker, and the endpoints whose circuit breakers are open, if there are some.

    For information: turns of such models are accepted and wait.
    """
    models = [model.id for model in platform.serving.state().models if not model.is_available]
    with platform.database.connection() as connection:
        broken = [name for name, each in breakers.list_breakers(connection).items() if each.state != "closed"]
    problems = {"unserved_models": models, "open_breakers": broken}
    return {name: names for name, names in problems.items() if names}


class MigrationCheck:
    """Checks that all migrations have been applied; after the first success it does not look again."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._done = False

    def __call__(self) -> None:
        """Raise Unavailable while migrations are pending."""
        if not self._done and pending_migrations(self._dsn):
            raise Unavailable("Database migrations are pending: run `sangha migrate`.")
        self._done = True

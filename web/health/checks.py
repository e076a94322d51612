"""What must work for a web process to serve."""

from collections import Counter
from functools import partial

import redis

from models.jobs import workers
from models.platform.database import Database, all_of, one
from models.platform.errors import Unavailable
from models.platform.migrate import pending
from web.health.metrics import Metrics
from web.platform import Platform

#: Cheap by the index that the queue itself lives on: finished jobs are not counted.
JOBS = (
    "SELECT queue, kind, state, count(*) AS count FROM jobs WHERE state = ANY(%(states)s) GROUP BY queue, kind, state"
)

#: The states worth an operator's look. `dead` stays until somebody replays or discards it.
STATES = ["queued", "running", "waiting", "dead"]


def install(platform: Platform) -> None:
    """Register the checks of this process and the gauges that need a server."""
    platform.checks["database"] = partial(check_database, platform.database)
    platform.checks["migrations"] = Migrations(platform.database.dsn)
    platform.checks["redis"] = partial(check_redis, platform.redis)
    platform.checks["queue"] = platform.queue.check
    platform.facts["workers"] = partial(count_workers, platform.database)
    install_gauges(platform, platform.metrics)


def install_gauges(platform: Platform, metrics: Metrics) -> None:
    """Open streams, and jobs by state."""
    metrics.gauge("sangha_open_streams", "Open event streams", lambda: {(): len(platform.streams)})
    metrics.gauge("sangha_jobs", "Unfinished jobs", partial(count_jobs, platform.database), "queue", "kind", "state")


def check_database(database: Database) -> None:
    """Raises Unavailable."""
    with database.connection() as connection:
        one(connection, "SELECT 1")


def check_redis(client: "redis.Redis") -> None:
    """Raises redis.ConnectionError or redis.TimeoutError."""
    client.ping()


def count_workers(database: Database) -> dict[str, int]:
    """Living workers by pool. For information: a web process serves, and takes turns, without any."""
    with database.connection() as connection:
        return dict(Counter(pool for worker in workers.living(connection) for pool in worker.pools))


class Migrations:
    """Whether the schema is the one that this code knows; once it is, it stays so for the life of the process."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._done = False

    def __call__(self) -> None:
        """Raises Unavailable while migrations are missing."""
        if not self._done and pending(self._dsn):
            raise Unavailable("Migrations are missing: run `sangha migrate`.")
        self._done = True


def count_jobs(database: Database) -> dict[tuple[str, ...], float]:
    """Unfinished jobs by queue, kind and state; nothing while the database is down: the rest is still served."""
    try:
        with database.connection() as connection:
            rows = all_of(connection, JOBS, {"states": STATES})
    except Unavailable:
        return {}
    return {(row["queue"], row["kind"], row["state"]): row["count"] for row in rows}

"""Readiness checks and gauges of a web process."""

from collections import Counter
from functools import partial

import redis

from models.jobs import workers
from models.platform.database import Database, fetch_all, fetch_one
from models.platform.errors import Unavailable
from models.platform.migrate import pending_migrations
from web.api.platform import Platform
from web.http.metrics import Values

#: Cheap, by the index that the queue itself uses: ended jobs are not counted.
COUNT_JOBS = (
    "SELECT queue, kind, state, count(*) AS count FROM jobs WHERE state = ANY(%(states)s) GROUP BY queue, kind, state"
)

#: The states that matter to operators. A job is `dead` until an operator replays or discards it.
STATES = ["queued", "running", "waiting", "dead"]


def install(platform: Platform) -> None:
    """Register the readiness checks and gauges of this process."""
    platform.checks["database"] = partial(check_database, platform.database)
    platform.checks["migrations"] = MigrationCheck(platform.database.dsn)
    platform.checks["redis"] = partial(check_redis, platform.redis)
    platform.checks["queue"] = platform.queue.check
    platform.facts["workers"] = partial(count_workers, platform.database)
    gauge = platform.metrics.gauge
    gauge("sangha_open_streams", "Open event streams", lambda: {(): len(platform.streams)})
    gauge("sangha_jobs", "Unfinished jobs", partial(count_jobs, platform.database), "queue", "kind", "state")


def check_database(database: Database) -> None:
    """Check that Postgres responds. Raises Unavailable."""
    with database.connection() as connection:
        fetch_one(connection, "SELECT 1")


def check_redis(client: "redis.Redis") -> None:
    """Check that Redis responds. Raises redis.ConnectionError or redis.TimeoutError."""
    client.ping()


def count_workers(database: Database) -> dict[str, int]:
    """Count living workers by pool. For information: a web process accepts turns without any worker."""
    with database.connection() as connection:
        return dict(Counter(pool for worker in workers.list_live(connection) for pool in worker.pools))


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


def count_jobs(database: Database) -> Values:
    """Count unfinished jobs by queue, kind and state; empty while Postgres is down, so the rest is served."""
    try:
        with database.connection() as connection:
            rows = fetch_all(connection, COUNT_JOBS, {"states": STATES})
    except Unavailable:
        return {}
    return {(row["queue"], row["kind"], row["state"]): row["count"] for row in rows}

"""Gauges of what all processes share: jobs, workers, webhook endpoints and Redis. Each web process exports them."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import psycopg
import redis

from models.delivery import endpoints
from models.jobs import counts, workers
from models.platform import metrics
from models.platform.database import Connection, Database
from models.platform.errors import Unavailable
from models.platform.exposition import Values
from models.platform.metrics import ScrapedMetric
from models.platform.redis_memory import read_memory
from models.reports import promises
from models.reports.promises import Promise
from web.api.platform import Platform
from web.api.system.cached_read import CachedRead

log = logging.getLogger(__name__)

#: The metric of each promise.
PROMISES: Mapping[Promise, ScrapedMetric] = {
    "lost_turns": metrics.PROMISE_LOST_TURNS,
    "repeated_events": metrics.PROMISE_REPEATED_EVENTS,
    "double_charges": metrics.PROMISE_DOUBLE_CHARGES,
    "unbalanced_postings": metrics.PROMISE_UNBALANCED_POSTINGS,
}

#: Seconds to wait for a connection: a scrape has to end also while Postgres is away.
WAIT = 1.0


def install(platform: Platform) -> None:
    """Register the gauges. All are read at once, so that a scrape waits once for a server that is away."""
    rows = CachedRead(partial(read_all, platform.database))
    memory = CachedRead(partial(memory_values, platform.redis))
    for metric in (*READS, *PROMISES.values(), metrics.PROMISES_CHECKED):
        platform.metrics.read(metric, partial(_value_of, rows, metric))
    for metric in (metrics.REDIS_MEMORY, metrics.REDIS_MEMORY_LIMIT):
        platform.metrics.read(metric, partial(_value_of, memory, metric))


def _value_of(rows: Callable[[], Mapping[ScrapedMetric, Values]], metric: ScrapedMetric) -> Values:
    return rows().get(metric, {})


def read_all(database: Database) -> Mapping[ScrapedMetric, Values]:
    """Read the values of all gauges; none while Postgres is down, so that the other metrics are served."""
    try:
        with database.connection(wait=WAIT) as connection:
            values = {metric: read(connection) for metric, read in READS.items()}
            return values | dict(promise_values(connection))
    except (Unavailable, psycopg.Error) as error:
        log.warning("Cannot read jobs, workers and promises for the metrics: %s", error)
        return {}


def count_jobs(connection: Connection) -> Values:
    """Count jobs by queue, kind and state."""
    return {labels: float(count) for labels, count in counts.count_unfinished(connection).items()}


def count_scheduled(connection: Connection) -> Values:
    """Count the jobs that are due later."""
    return {(): counts.estimate_scheduled(connection)}


def oldest_jobs(connection: Connection) -> Values:
    """Return the seconds for which the oldest due job of each queue has waited."""
    return {(queue,): seconds for queue, seconds in counts.oldest_due(connection).items()}


def relay_lag(connection: Connection) -> Values:
    """Return the seconds for which the oldest job that may be published has been due."""
    return {(): counts.relay_lag(connection)}


def count_workers(connection: Connection) -> Values:
    """Count the workers of each pool that are live, and those that are silent."""
    ages = workers.heartbeat_ages(connection)
    return Counter((pool, "live" if age <= workers.SILENCE_LIMIT else "silent") for pool, age in ages)


def lease_ages(connection: Connection) -> Values:
    """Return the seconds since the oldest heartbeat of each pool's live workers."""
    ages: dict[tuple[str, ...], float] = {}
    for pool, age in workers.heartbeat_ages(connection):
        if age <= workers.SILENCE_LIMIT:
            ages[(pool,)] = max(age, ages.get((pool,), 0.0))
    return ages


def count_endpoints(connection: Connection) -> Values:
    """Count the webhook endpoints by state."""
    return {(state,): float(count) for state, count in endpoints.count_by_state(connection).items()}


def promise_values(connection: Connection) -> Iterator[tuple[ScrapedMetric, Values]]:
    """Yield how many rows break each promise, and up to when all were checked; nothing before the first check."""
    checks = promises.results(connection)
    for promise, check in checks.items():
        yield PROMISES[promise], {(): float(check.breaches)}
    if checks:
        yield metrics.PROMISES_CHECKED, {(): min(check.checked_to.timestamp() for check in checks.values())}


def memory_values(client: "redis.Redis") -> Mapping[ScrapedMetric, Values]:
    """Return the memory that Redis uses, and may use, if there is a limit; nothing while it is unavailable."""
    memory = read_memory(client)
    if memory is None:
        return {}
    used: Values = {(): float(memory.used)}
    limit: Values = {(): float(memory.limit)} if memory.limit else {}
    return {metrics.REDIS_MEMORY: used, metrics.REDIS_MEMORY_LIMIT: limit}


#: How each metric is read.
READS: Mapping[ScrapedMetric, Callable[[Connection], Values]] = {
    metrics.JOBS: count_jobs,
    metrics.SCHEDULED_JOBS: count_scheduled,
    metrics.OLDEST_JOB: oldest_jobs,
    metrics.RELAY_LAG: relay_lag,
    metrics.WORKERS: count_workers,
    metrics.WORKER_LEASE_AGE: lease_ages,
    metrics.WEBHOOK_ENDPOINTS: count_endpoints,
}

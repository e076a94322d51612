"""Gauges of what all processes share: jobs, workers, webhook endpoints and Redis. Each web process exports them."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

import redis

from models.delivery import endpoints
from models.jobs import counts, workers
from models.platform import metrics
from models.platform.database import Connection
from models.platform.exposition import Values
from models.platform.metrics import ScrapedMetric
from models.platform.redis_memory import read_memory
from models.reports import promises
from models.reports.promises import Promise
from web.api.platform import Platform
from web.api.system.cached_read import CachedRead
from web.api.system.read_values import read_values

#: The metric of each promise.
PROMISES: Mapping[Promise, ScrapedMetric] = {
    "lost_turns": metrics.PROMISE_LOST_TURNS,
    "repeated_events": metrics.PROMISE_REPEATED_EVENTS,
    "double_charges": metrics.PROMISE_DOUBLE_CHARGES,
    "unbalanced_postings": metrics.PROMISE_UNBALANCED_POSTINGS,
}


def install(platform: Platform) -> None:
    """Register the gauges."""
    reads: Mapping[ScrapedMetric, Callable[[Connection], Values]] = {
        metrics.JOBS: count_jobs,
        metrics.SCHEDULED_JOBS: count_scheduled,
        metrics.OLDEST_JOB: oldest_jobs,
        metrics.RELAY_LAG: relay_lag,
        metrics.WORKERS: count_workers,
        metrics.WORKER_LEASE_AGE: lease_ages,
        metrics.WEBHOOK_ENDPOINTS: count_endpoints,
        metrics.PROMISES_CHECKED: promises_checked,
        **{metric: partial(breaches, promise) for promise, metric in PROMISES.items()},
    }
    for metric, read in reads.items():
        platform.metrics.read(metric, CachedRead(partial(read_values, platform.database, read, metric.name)))
    platform.metrics.read(metrics.REDIS_MEMORY, CachedRead(partial(redis_memory, platform.redis)))
    platform.metrics.read(metrics.REDIS_MEMORY_LIMIT, CachedRead(partial(redis_memory_limit, platform.redis)))


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


def breaches(promise: Promise, connection: Connection) -> Values:
    """Return how many rows break a promise; nothing before it was checked."""
    check = promises.results(connection).get(promise)
    return {} if check is None else {(): float(check.breaches)}


def promises_checked(connection: Connection) -> Values:
    """Return the time up to which all promises have been checked; nothing before the first check."""
    checks = promises.results(connection).values()
    return {(): min(check.checked_to.timestamp() for check in checks)} if checks else {}


def redis_memory(client: "redis.Redis") -> Values:
    """Return the memory that Redis uses; nothing while it is unavailable."""
    memory = read_memory(client)
    return {(): float(memory.used)} if memory else {}


def redis_memory_limit(client: "redis.Redis") -> Values:
    """Return the memory that Redis may use; nothing without a limit."""
    memory = read_memory(client)
    return {(): float(memory.limit)} if memory and memory.limit else {}

"""Wait until the platform is idle, and report the jobs, requests and messages that remain if it does not become so."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import redis

from bench.chaos.violations import Violation
from bench.harness.stack import redis_queue_lengths
from models.platform.database import Database, fetch_all
from models.platform.errors import Unavailable
from models.platform.redis_client import connect
from models.platform.settings import Settings

#: Seconds between two checks, and the number of consecutive checks that must find nothing unfinished.
INTERVAL, CHECKS = 0.5, 3

# Jobs that should be running or ended. Those due later do not count.
UNFINISHED = """
SELECT id, kind, state, attempt, failures, crashes, worker, published_at, run_at, pending_children,
       blocked, sends, now() - (SELECT seen_at FROM workers WHERE name = jobs.worker) AS silent,
       now() - created_at AS age
FROM jobs WHERE state IN ('running', 'waiting') OR state IN ('queued', 'scheduled') AND run_at <= now()
ORDER BY id LIMIT 100
"""

# Failed jobs that wait for their next attempt.
RETRYING = """
SELECT id, kind, state, attempt, failures, crashes, error FROM jobs
WHERE state IN ('queued', 'scheduled') AND run_at > now() AND failures > 0 AND account_id <> 'platform'
ORDER BY id LIMIT 100
"""

# Requests that hold their Idempotency-Key.
LOCKED_KEYS = "SELECT key FROM idempotency_keys WHERE status IS NULL AND locked_until > clock_timestamp() LIMIT 100"

#: Runs `rabbitmqctl` with arguments, and returns its output.
RabbitmqCtl = Callable[..., str]

Rows = Sequence[Mapping[str, Any]]


def wait_for_quiescence(
    database: Database, settings: Settings, patience: float, rabbitmqctl: RabbitmqCtl | None
) -> Iterator[Violation]:
    """Wait until nothing is unfinished; report what still is after `patience` seconds."""
    deadline, quiet, remaining = time.monotonic() + patience, 0, dict[str, Rows]()
    while quiet < CHECKS and time.monotonic() < deadline:
        remaining = {rule: rows for rule, rows in _unfinished(database, settings, rabbitmqctl).items() if rows}
        quiet = 0 if remaining else quiet + 1
        time.sleep(INTERVAL)
    for rule, rows in remaining.items():
        for row in rows:
            yield Violation(rule, str(row.get("id") or row.get("key") or row.get("queue")), describe(row))


def describe(row: Mapping[str, Any]) -> str:
    """Describe an unfinished row."""
    columns = [f"{name} {value}" for name, value in row.items() if name not in ("id", "key") and value is not None]
    return f"unfinished: {', '.join(columns)}"


def _unfinished(database: Database, settings: Settings, rabbitmqctl: RabbitmqCtl | None) -> Mapping[str, Rows]:
    try:
        with database.connection() as connection:
            jobs = [*fetch_all(connection, UNFINISHED), *fetch_all(connection, RETRYING)]
            locked = fetch_all(connection, LOCKED_KEYS)
    except Unavailable as error:
        return {"ends": [{"id": "postgres", "error": str(error)}]}
    queues = _rabbitmq_queues(rabbitmqctl) if rabbitmqctl is not None else _redis_queues(settings)
    return {"stuck": jobs, "idempotency": locked, "queues": queues}


def _rabbitmq_queues(rabbitmqctl: RabbitmqCtl) -> Rows:
    """Return the queues with messages, or with unacknowledged ones."""
    lines = rabbitmqctl("list_queues", "--no-table-headers", "name", "messages_ready", "messages_unacknowledged")
    counts = [line.split("\t") for line in lines.splitlines() if line.count("\t") == 2]
    return [
        {"queue": name, "ready": int(ready), "unacknowledged": int(unacknowledged)}
        for name, ready, unacknowledged in counts
        if not name.endswith(".XQ") and (ready, unacknowledged) != ("0", "0")
    ]


def _redis_queues(settings: Settings) -> Rows:
    """Return the queues with messages.

    A consumer may hold a message that it never received, because its connection was cut under Dramatiq's answer: the
    outbox has sent that message again, and it is dropped with the consumer.
    """
    try:
        with closing(connect(settings.broker_address)) as client:
            lengths = redis_queue_lengths(client)
    except redis.RedisError as error:
        return [{"queue": "redis", "error": repr(error)}]
    return [{"queue": name, "ready": length} for name, length in lengths.items() if length]

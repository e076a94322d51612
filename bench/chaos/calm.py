"""Waiting until the platform is calm, and what is left where it does not become so: what nobody will ever end."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pika
import redis

from bench.chaos.violations import Violation
from models.jobs.catalogue import CATALOGUE
from models.platform.database import Database, fetch_all
from models.platform.errors import Unavailable
from models.platform.redis_client import connect
from models.platform.settings import Settings

#: Seconds between two looks; it is calm when so many in a row find nothing.
PAUSE, LOOKS = 0.5, 3

# Jobs that should be moving. What is to begin later is at rest.
UNDONE = """
SELECT id, kind, state, attempt, failures, crashes, worker, published_at, run_at, pending_children,
       coalesce(lease_until < now(), false) AS expired, now() - created_at AS age
FROM jobs WHERE state IN ('running', 'waiting') OR state = 'queued' AND run_at <= now() ORDER BY id LIMIT 100
"""

# A second look while failures wait for their next attempt.
RETRYING = """
SELECT id, kind, state, attempt, failures, crashes, error FROM jobs
WHERE state = 'queued' AND run_at > now() AND failures > 0 AND account_id <> 'platform' ORDER BY id LIMIT 100
"""

# Requests that somebody is still at, or seems to be.
HELD = "SELECT key FROM idempotency_keys WHERE status IS NULL AND locked_until > clock_timestamp() LIMIT 100"

#: Rows, or messages, by what is undone about them.
Undone = Mapping[str, Sequence[Mapping[str, Any]]]

#: `rabbitmqctl`.
Control = Callable[..., str]


def calmed(database: Database, settings: Settings, patience: float, control: Control | None) -> Iterator[Violation]:
    """Wait until nothing is undone; tell of what still is after so many seconds."""
    deadline, quiet, left = time.monotonic() + patience, 0, dict[str, Sequence[Any]]()
    while quiet < LOOKS and time.monotonic() < deadline:
        left = {rule: rows for rule, rows in _undone(database, settings, control).items() if rows}
        quiet = 0 if left else quiet + 1
        time.sleep(PAUSE)
    for rule, rows in left.items():
        for row in rows:
            yield Violation(rule, str(row.get("id") or row.get("key") or row.get("queue")), stuck(row))


def stuck(row: Mapping[str, Any]) -> str:
    """Why a row can't be at rest as it is."""
    told = ", ".join(
        f"{name} {value}" for name, value in row.items() if name not in ("id", "key") and value is not None
    )
    return f"still undone: {told}"


def _undone(database: Database, settings: Settings, control: Control | None) -> Undone:
    try:
        with database.connection() as connection:
            jobs = [*fetch_all(connection, UNDONE), *fetch_all(connection, RETRYING)]
            held = fetch_all(connection, HELD)
    except Unavailable as error:
        return {"ends": [{"id": "postgres", "error": str(error)}]}
    return {"moves": jobs, "idempotency": held, "queues": messages(settings, control)}


def messages(settings: Settings, control: Control | None) -> Sequence[Mapping[str, Any]]:
    """The queues that still hold messages, or whose consumers do."""
    if settings.broker_address.startswith("amqp"):
        return _of_rabbitmq(settings, control)
    return _of_redis(settings)


def _of_rabbitmq(settings: Settings, control: Control | None) -> Sequence[Mapping[str, Any]]:
    if control is not None:
        lines = control("list_queues", "--no-table-headers", "name", "messages_ready", "messages_unacknowledged")
        counts = [line.split("\t") for line in lines.splitlines() if line.count("\t") == 2]
        return [
            {"queue": name, "ready": int(ready), "unacknowledged": int(held)}
            for name, ready, held in counts
            if not name.endswith(".XQ") and (ready, held) != ("0", "0")
        ]
    with pika.BlockingConnection(pika.URLParameters(settings.broker_address)) as connection:
        channel = connection.channel()
        queues = sorted({kind.queue for kind in CATALOGUE.values()})
        waiting = {name: channel.queue_declare(name, passive=True).method.message_count for name in queues}
    return [{"queue": name, "ready": count} for name, count in waiting.items() if count]


def _of_redis(settings: Settings) -> Sequence[Mapping[str, Any]]:
    """What waits. A consumer may hold what it never got, for the connection was cut under Dramatiq's answer: a nudge
    that the outbox has sent again, and that goes with the consumer."""
    client = connect(settings.broker_address)
    try:
        queues = sorted({kind.queue for kind in CATALOGUE.values()})
        ready = {name: int(client.llen(f"sangha:queue:{name}")) for name in queues}
    except redis.RedisError as error:
        return [{"queue": "redis", "error": repr(error)}]
    finally:
        client.close()
    return [{"queue": name, "ready": count} for name, count in ready.items() if count]

"""The record of a delivery: an event for a webhook endpoint, with its attempts.

    pending ──► delivered | failed    by its job; a replay makes it pending again
       ▲ └────► held                  the endpoint was disabled before
       └──────────┘                   when the endpoint is enabled

A delivery exists once per event and endpoint. `delivery_job_id` is the fence: only that job changes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.delivery.endpoints import Endpoint
from models.delivery.events import DELIVERY_ID, INSERT_JOBS, JOB_ID, AccountEvent, job_parameters
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns

DeliveryState = Literal["pending", "held", "delivered", "failed"]

#: Attempts that a delivery keeps: the last ones.
KEPT_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Delivery:
    """A row of `webhook_deliveries`, and the type of its event.

    tries            attempts since the event, or since the last replay
    attempts         the last ones: `{"at", "status_code", "seconds", "body", "error"}`
    next_attempt_at  None: there is none
    """

    id: str
    account_id: str
    endpoint_id: str
    event_id: str
    event_type: str
    delivery_state: DeliveryState
    delivery_job_id: str
    tries: int
    attempts: list[dict[str, Any]]
    next_attempt_at: datetime | None
    created_at: datetime

    def is_job_of(self, job_id: str) -> bool:
        """Return whether the job is to deliver it."""
        return self.delivery_job_id == job_id and self.delivery_state in ("pending", "failed")


SELECT = f"""
SELECT {columns(Delivery, "webhook_deliveries", omit=("event_type",))}, account_events.event_type
FROM webhook_deliveries JOIN account_events ON account_events.id = webhook_deliveries.event_id"""

READ = f"{SELECT} WHERE webhook_deliveries.id = %(id)s AND webhook_deliveries.account_id = %(account_id)s"


def read(connection: Connection, delivery_id: str, account_id: str) -> Delivery | None:
    """Return a delivery of the account."""
    row = fetch_one(connection, READ, {"id": delivery_id, "account_id": account_id})
    return Delivery(**row) if row else None


PAGE = f"""{SELECT}
WHERE webhook_deliveries.account_id = %(account_id)s
  AND (%(endpoint_id)s::text IS NULL OR webhook_deliveries.endpoint_id = %(endpoint_id)s)
  AND (%(event_id)s::text IS NULL OR webhook_deliveries.event_id = %(event_id)s)
  AND (%(state)s::text IS NULL OR webhook_deliveries.delivery_state = %(state)s)
  AND (%(after)s::text IS NULL OR webhook_deliveries.id < %(after)s)
ORDER BY webhook_deliveries.id DESC LIMIT %(limit)s
"""


def page(
    connection: Connection,
    account_id: str,
    *,
    endpoint_id: str | None = None,
    event_id: str | None = None,
    state: DeliveryState | None = None,
    after: str | None = None,
    limit: int = 20,
) -> list[Delivery]:
    """Return at most `limit` deliveries of the account, those of the newest events first, beyond `after`."""
    parameters = {
        "account_id": account_id,
        "endpoint_id": endpoint_id,
        "event_id": event_id,
        "state": state,
        "after": after,
        "limit": limit,
    }
    return [Delivery(**row) for row in fetch_all(connection, PAGE, parameters)]


@dataclass(frozen=True, slots=True)
class Task:
    """A delivery with its event and its endpoint."""

    delivery: Delivery
    event: AccountEvent
    endpoint: Endpoint


#: Prefix of the columns → their record.
PARTS: Mapping[str, type[Any]] = {"delivery": Delivery, "event": AccountEvent, "endpoint": Endpoint}


def _prefixed(record: type[Any], table: str, prefix: str, omit: Sequence[str] = ()) -> str:
    names = columns(record, omit=omit).split(", ")
    return ", ".join(f'{table}.{name} AS "{prefix}.{name}"' for name in names)


READ_TASK = f"""
SELECT {_prefixed(Delivery, "webhook_deliveries", "delivery", ("event_type",))},
       account_events.event_type AS "delivery.event_type", {_prefixed(AccountEvent, "account_events", "event")},
       {_prefixed(Endpoint, "webhook_endpoints", "endpoint")}
FROM webhook_deliveries
JOIN account_events ON account_events.id = webhook_deliveries.event_id
JOIN webhook_endpoints ON webhook_endpoints.id = webhook_deliveries.endpoint_id
WHERE webhook_deliveries.id = %(id)s AND webhook_deliveries.account_id = %(account_id)s
"""


def read_task(connection: Connection, delivery_id: str, account_id: str) -> Task | None:
    """Return a delivery of the account, its event and its endpoint; None if one of them was deleted."""
    row = fetch_one(connection, READ_TASK, {"id": delivery_id, "account_id": account_id})
    if row is None:
        return None
    return Task(*(record(**_part(row, prefix)) for prefix, record in PARTS.items()))


def _part(row: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix + "."): value for name, value in row.items() if name.startswith(prefix + ".")}


# Fenced by the job. One that is dead has failed its delivery, and an operator can let it run again.
RUNNABLE = "delivery_state IN ('pending', 'failed')"

STORE_ATTEMPT = f"""
UPDATE webhook_deliveries SET
    delivery_state = %(state)s, tries = tries + 1, next_attempt_at = now() + make_interval(secs => %(delay)s),
    attempts = CASE WHEN jsonb_array_length(attempts) >= {KEPT_ATTEMPTS} THEN attempts - 0 ELSE attempts END
        || %(attempt)s
WHERE id = %(id)s AND account_id = %(account_id)s AND delivery_job_id = %(job_id)s AND {RUNNABLE}
"""


@dataclass(frozen=True, slots=True)
class Fence:
    """A delivery and the job that may change it while it is pending."""

    delivery_id: str
    account_id: str
    job_id: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the statements."""
        return {"id": self.delivery_id, "account_id": self.account_id, "job_id": self.job_id}


def store_attempt(
    connection: Connection,
    fence: Fence,
    state: DeliveryState,
    attempt: Mapping[str, Any],
    *,
    delay: float | None = None,
) -> None:
    """Store an attempt and the state after it.

    delay  seconds until the next attempt; None: there is none
    """
    connection.execute(STORE_ATTEMPT, {**fence.parameters, "state": state, "delay": delay, "attempt": Jsonb([attempt])})


# While the endpoint is locked nobody enables it, and looks for held deliveries before this one is held.
HOLD = f"""
WITH disabled AS MATERIALIZED (
    SELECT webhook_endpoints.id AS disabled_id
    FROM webhook_endpoints JOIN webhook_deliveries ON webhook_endpoints.id = endpoint_id
    WHERE webhook_deliveries.id = %(id)s AND webhook_deliveries.account_id = %(account_id)s
      AND endpoint_status = 'disabled' FOR SHARE OF webhook_endpoints
)
UPDATE webhook_deliveries SET delivery_state = 'held', next_attempt_at = NULL FROM disabled
WHERE id = %(id)s AND endpoint_id = disabled_id AND delivery_job_id = %(job_id)s AND {RUNNABLE}
RETURNING id
"""


def hold(connection: Connection, fence: Fence) -> bool:
    """Have a pending delivery wait until its endpoint is enabled. Returns False if it is, or was deleted."""
    return fetch_one(connection, HOLD, fence.parameters) is not None


ENDPOINT = """
endpoint AS MATERIALIZED (
    SELECT id, failing_since FROM webhook_endpoints
    WHERE id = %(endpoint_id)s AND account_id = %(account_id)s AND endpoint_status = 'enabled' FOR KEY SHARE
)"""

# A delivery whose job is unfinished is left as it is. One whose job was deleted is not.
REPLAY = f"""
WITH {ENDPOINT}, event AS MATERIALIZED (
    SELECT id, account_id FROM account_events
    WHERE id = ANY(%(event_ids)s) AND account_id = %(account_id)s FOR KEY SHARE
), delivery AS (
    INSERT INTO webhook_deliveries (id, account_id, endpoint_id, event_id, delivery_job_id, next_attempt_at)
    SELECT {DELIVERY_ID}, event.account_id, endpoint.id, event.id, {JOB_ID}, now()
    FROM event CROSS JOIN endpoint ORDER BY event.id
    ON CONFLICT (event_id, endpoint_id) DO UPDATE SET
        delivery_state = 'pending', delivery_job_id = excluded.delivery_job_id, tries = 0, next_attempt_at = now()
        WHERE (webhook_deliveries.delivery_state <> 'delivered' OR NOT %(undelivered_only)s)
          AND (webhook_deliveries.delivery_state <> 'pending' OR NOT EXISTS (
              SELECT FROM jobs WHERE jobs.id = webhook_deliveries.delivery_job_id AND finished_at IS NULL))
    RETURNING id, account_id, endpoint_id, delivery_job_id
)
{INSERT_JOBS}
"""


def replay(
    connection: Connection,
    endpoint_id: str,
    account_id: str,
    event_ids: Sequence[str],
    *,
    undelivered_only: bool = False,
    background: bool = True,
) -> int:
    """Deliver events to an enabled endpoint once more, unless their delivery is pending. Returns how many.

    background  the jobs do not delay first attempts
    """
    parameters = {"event_ids": list(event_ids), "undelivered_only": undelivered_only}
    target = {"endpoint_id": endpoint_id, "account_id": account_id}
    return _start(connection, REPLAY, {**parameters, **target}, background=background)


RESUME = f"""
WITH {ENDPOINT}, held AS MATERIALIZED (
    SELECT webhook_deliveries.id AS held_id
    FROM webhook_deliveries JOIN endpoint ON endpoint.id = webhook_deliveries.endpoint_id
    WHERE delivery_state = 'held' ORDER BY webhook_deliveries.id LIMIT %(limit)s
    FOR NO KEY UPDATE OF webhook_deliveries SKIP LOCKED
), delivery AS (
    UPDATE webhook_deliveries SET
        delivery_state = 'pending', delivery_job_id = {JOB_ID}, tries = 0, next_attempt_at = now()
    FROM held WHERE id = held_id
    RETURNING id, account_id, endpoint_id, delivery_job_id
)
{INSERT_JOBS}
"""


def resume(connection: Connection, endpoint_id: str, account_id: str, limit: int) -> int:
    """Continue at most `limit` held deliveries of an enabled endpoint. Returns how many."""
    return _start(connection, RESUME, {"endpoint_id": endpoint_id, "account_id": account_id, "limit": limit})


def _start(connection: Connection, statement: str, parameters: Mapping[str, Any], *, background: bool = True) -> int:
    started = connection.execute(statement, {**parameters, **job_parameters(background=background)})
    connection.nudge_after_commit(started)
    return started.rowcount


COUNT_PENDING = """
SELECT count(*)::int AS count FROM (
    SELECT FROM webhook_deliveries
    WHERE endpoint_id = %(endpoint_id)s AND account_id = %(account_id)s AND delivery_state = 'pending'
    LIMIT %(most)s) AS pending
"""


def count_pending(connection: Connection, endpoint_id: str, account_id: str, most: int) -> int:
    """Return the number of the endpoint's pending deliveries, counted up to `most`."""
    parameters = {"endpoint_id": endpoint_id, "account_id": account_id, "most": most}
    row = fetch_one(connection, COUNT_PENDING, parameters)
    return int(row["count"]) if row else 0

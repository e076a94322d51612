"""The events of accounts: what has happened, for webhooks and for `GET /v1/events`.

An event is frozen when it is recorded, in the transaction of what it reports. The same statement inserts a delivery and
its job for each endpoint that asks for the type, so a webhook is neither lost nor sent for something that was rolled
back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from models.delivery.event_types import EventType
from models.jobs.catalogue import CATALOGUE, batch_queue
from models.jobs.jobs import PLATFORM_ACCOUNT
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.ids import new_id
from models.platform.records import columns
from models.platform.tracing import current_traceparent

#: Days for which events and their deliveries are kept.
KEPT_DAYS = 30

#: The kind of job that delivers an event to an endpoint.
DELIVER = "webhook.deliver"


@dataclass(frozen=True, slots=True)
class AccountEvent:
    """A row of `account_events`.

    data  thin: ids, and few other fields
    """

    id: str
    account_id: str
    event_type: str
    data: dict[str, Any]
    created_at: datetime


COLUMNS = columns(AccountEvent, "account_events")

# The id of a delivery, derived from its event and its endpoint: a UUIDv7 with the timestamp of the event.
DELIVERY_ID = """'whd_' || substr(event.id, 5, 12) || '7' || substr(md5(event.id || endpoint.id), 1, 3)
           || '8' || substr(md5(event.id || endpoint.id), 4, 15)"""

# The id of a new job: a UUIDv7.
JOB_ID = """'job_' || lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
           || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14)"""

# The platform owns the jobs, so that those of a dead endpoint do not count for the limits of its account. The lane of
# an endpoint is its id. A delivery to an endpoint that fails waits apart from the others.
INSERT_JOBS = f"""
INSERT INTO jobs (id, account_id, kind, queue, priority, arguments, state, lane, traceparent)
SELECT delivery.delivery_job_id, '{PLATFORM_ACCOUNT}', '{DELIVER}',
       CASE WHEN endpoint.failing_since IS NULL THEN %(queue)s ELSE %(batch_queue)s END, %(priority)s,
       jsonb_build_object('delivery_id', delivery.id, 'account_id', delivery.account_id) || %(arguments)s, 'queued',
       endpoint.id, %(traceparent)s
FROM delivery JOIN endpoint ON endpoint.id = delivery.endpoint_id
RETURNING lane, id"""

# The endpoints are locked against their deletion.
RECORD = f"""
WITH event AS (
    INSERT INTO account_events (id, account_id, event_type, data, event_key, tested_id)
    VALUES (%(id)s, %(account_id)s, %(event_type)s, %(data)s, %(event_key)s, %(tested_id)s)
    ON CONFLICT (account_id, event_type, event_key) WHERE event_key IS NOT NULL DO NOTHING
    RETURNING id, account_id
), endpoint AS MATERIALIZED (
    SELECT webhook_endpoints.id, {{failing_since}} AS failing_since
    FROM webhook_endpoints JOIN event ON event.account_id = webhook_endpoints.account_id
    WHERE {{condition}}
    ORDER BY webhook_endpoints.id FOR KEY SHARE OF webhook_endpoints
), delivery AS (
    INSERT INTO webhook_deliveries (id, account_id, endpoint_id, event_id, delivery_job_id, next_attempt_at)
    SELECT {DELIVERY_ID}, event.account_id, endpoint.id, event.id, {JOB_ID}, now()
    FROM event CROSS JOIN endpoint
    RETURNING id, account_id, endpoint_id, delivery_job_id
)
{INSERT_JOBS}
"""

RECORD_EVENT = RECORD.format(
    failing_since="webhook_endpoints.failing_since",
    condition="endpoint_status = 'enabled' AND event_types && %(patterns)s",
)

# A person waits for it, also where the endpoint fails or is disabled.
RECORD_SAMPLE = RECORD.format(failing_since="NULL::timestamptz", condition="webhook_endpoints.id = %(tested_id)s")

#: The argument of a job that sends its event once, whatever becomes of it.
TEST = "test"


def record(
    connection: Connection, account_id: str, type: EventType, data: Mapping[str, Any], *, key: str | None = None
) -> None:
    """Record an event in the caller's transaction, and have it delivered to the endpoints that ask for its type.

    One statement, whose result is not waited for. The relay of this process is nudged after the commit.

    data  thin, such as `{"id": "resp_…"}`; without names, addresses or texts
    key   of several events with the same type and key the account has only the first
    """
    parameters = {**_parameters(account_id, type, data, key), "patterns": patterns_of(type)}
    connection.nudge_after_commit(connection.execute(RECORD_EVENT, parameters))


def record_sample(
    connection: Connection, account_id: str, endpoint_id: str, type: EventType, data: Mapping[str, Any]
) -> str | None:
    """Record a sample that is sent once to an endpoint of the account only, and that is not listed.

    Returns the id of the job that sends it, or None if the account has no such endpoint.
    """
    parameters = _parameters(account_id, type, data, None, tested_id=endpoint_id)
    row = connection.execute(RECORD_SAMPLE, {**parameters, "arguments": Jsonb({TEST: True})}).fetchone()
    return str(row["id"]) if row else None


def _parameters(
    account_id: str, type: str, data: Mapping[str, Any], key: str | None, tested_id: str | None = None
) -> dict[str, Any]:
    return {
        "id": new_id("evt"),
        "account_id": account_id,
        "event_type": type,
        "data": Jsonb(data),
        "event_key": key,
        "tested_id": tested_id,
        **job_parameters(),
    }


def job_parameters(*, background: bool = False) -> dict[str, Any]:
    """Return the parameters of INSERT_JOBS."""
    kind = CATALOGUE[DELIVER]
    return {
        "queue": batch_queue(kind.queue) if background else kind.queue,
        "batch_queue": batch_queue(kind.queue),
        "priority": kind.priority,
        "arguments": Jsonb({}),
        "traceparent": current_traceparent(),
    }


def patterns_of(type: str) -> list[str]:
    """Return the patterns that an event type matches: `a.b` → `*`, `a.*`, `a.b`."""
    parts = type.split(".")
    return ["*", *(".".join([*parts[:count], "*"]) for count in range(1, len(parts))), type]


READ = f"SELECT {COLUMNS} FROM account_events WHERE id = %(id)s AND account_id = %(account_id)s"


def read(connection: Connection, event_id: str, account_id: str) -> AccountEvent | None:
    """Return an event of the account."""
    row = fetch_one(connection, READ, {"id": event_id, "account_id": account_id})
    return AccountEvent(**row) if row else None


# In the order of the transactions, of which none that could still commit an event is shown or was passed by: a
# transaction that commits later than another may have recorded its event earlier. So a poller that continues after the
# last event that it has seen misses none.
PAGE = f"""
SELECT {COLUMNS} FROM account_events
WHERE account_id = %(account_id)s AND tested_id IS NULL AND recorded_in < pg_snapshot_xmin(pg_current_snapshot())
  AND (%(patterns)s::text[] IS NULL OR event_type LIKE ANY(%(patterns)s))
  AND (%(since)s::timestamptz IS NULL OR created_at >= %(since)s)
  AND (%(after)s::text IS NULL OR (recorded_in, id) {{beyond}} (
      SELECT last.recorded_in, last.id FROM account_events AS last
      WHERE last.id = %(after)s AND last.account_id = %(account_id)s))
ORDER BY recorded_in {{direction}}, id {{direction}} LIMIT %(limit)s
"""

OLDEST_FIRST = PAGE.format(beyond=">", direction="ASC")
NEWEST_FIRST = PAGE.format(beyond="<", direction="DESC")


def page(
    connection: Connection,
    account_id: str,
    *,
    after: str | None = None,
    limit: int = 20,
    oldest_first: bool = False,
    patterns: Sequence[str] | None = None,
    since: datetime | None = None,
) -> list[AccountEvent]:
    """Return at most `limit` events of the account, beyond the event `after`; none if that does not exist.

    A poller reads the oldest first, from the last event that it has seen.
    """
    like = None if patterns is None else [pattern.replace("_", r"\_").replace("*", "%") for pattern in patterns]
    parameters = {"account_id": account_id, "after": after, "limit": limit, "patterns": like, "since": since}
    statement = OLDEST_FIRST if oldest_first else NEWEST_FIRST
    return [AccountEvent(**row) for row in fetch_all(connection, statement, parameters)]


# Deliveries are deleted with their events.
PRUNE = """
DELETE FROM account_events WHERE id IN (
    SELECT id FROM account_events WHERE created_at < now() - make_interval(days => %(days)s) LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete a batch of events older than KEPT_DAYS, with their deliveries. Returns how many."""
    return connection.execute(PRUNE, {"days": KEPT_DAYS, "batch": batch}).rowcount


# Transactions of another server, of which this one has a logical copy, have no place in the order of its own.
REORDER_RESTORED = """
UPDATE account_events SET recorded_in = '3' WHERE id IN (
    SELECT id FROM account_events WHERE recorded_in > pg_snapshot_xmax(pg_current_snapshot()) LIMIT %(batch)s)
"""


def reorder_restored(connection: Connection, batch: int) -> int:
    """Put a batch of events that were restored from a dump before all others. Returns how many."""
    return connection.execute(REORDER_RESTORED, {"batch": batch}).rowcount

"""Schedules: what to start, when, and for whom. A schedule is due when `next_fire_at` is in the past.

`pipelines/schedules/` interprets triggers and starts jobs; `firings` has the history.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.access.auth_context import AuthContext
from models.accounts import plans
from models.accounts.accounts import Caller, Role
from models.accounts.plans import EFFECTIVE_LIMITS
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns
from models.schedules import firings
from models.schedules.firings import Firing, parse_firing

IfMissed = Literal["run_once", "skip"]
ScheduleStatus = Literal["active", "paused", "ended"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A row of `schedules`, and its last firing where it was read.

    user_id        the user for whom it acts; None for the platform's own
    kind           what it starts
    asked, plan    its parameters, as requested and as they are passed to the starter
    grace_seconds  a firing that is later than this counts as missed
    next_fire_at   None: it is paused, or there is no next time
    planned_at     when `next_fire_at` was computed
    """

    id: str
    account_id: str
    user_id: str | None
    name: str
    kind: str
    asked: dict[str, Any]
    plan: dict[str, Any]
    trigger: dict[str, Any]
    if_missed: IfMissed
    grace_seconds: int
    paused_at: datetime | None
    next_fire_at: datetime | None
    planned_at: datetime
    created_at: datetime
    updated_at: datetime
    last: Firing | None = None

    @property
    def status(self) -> ScheduleStatus:
        """Whether it will fire, and if not, why."""
        if self.paused_at is not None:
            return "paused"
        return "active" if self.next_fire_at is not None else "ended"


#: The columns of `schedules`.
COLUMNS = columns(Schedule, "schedules", omit=("last",))


def database_time(connection: Connection) -> datetime:
    """Return the database's time, the clock of all schedules, which all replicas share."""
    row = fetch_one(connection, "SELECT now() AS now")
    assert row is not None
    now: datetime = row["now"]
    return now


# Locks the creator's membership, and counts the creator's schedules.
LOCK_MEMBERSHIP = "SELECT FROM memberships WHERE account_id = %(account_id)s AND user_id = %(user_id)s FOR UPDATE"
COUNT = "SELECT count(*)::int AS count FROM schedules WHERE account_id = %(account_id)s AND user_id = %(user_id)s"


def lock_and_count(connection: Connection, account_id: str, user_id: str) -> int:
    """Count a member's schedules, and lock the membership so that none is added before the transaction ends."""
    parameters = {"account_id": account_id, "user_id": user_id}
    connection.execute(LOCK_MEMBERSHIP, parameters)
    row = fetch_one(connection, COUNT, parameters)
    return int(row["count"]) if row else 0


# A repeated request has the same id and inserts nothing.
INSERT = """
INSERT INTO schedules (id, account_id, user_id, name, kind, asked, plan, trigger, if_missed, grace_seconds, paused_at,
                       next_fire_at, planned_at, created_at, updated_at)
VALUES (%(id)s, %(account_id)s, %(user_id)s, %(name)s, %(kind)s, %(asked)s, %(plan)s, %(trigger)s, %(if_missed)s,
        %(grace_seconds)s, %(paused_at)s, %(next_fire_at)s, %(planned_at)s, %(created_at)s, %(updated_at)s)
ON CONFLICT (id) DO NOTHING
"""


def insert(connection: Connection, schedule: Schedule) -> bool:
    """Insert a schedule. Returns False if the id exists."""
    return connection.execute(INSERT, _values(schedule)).rowcount > 0


# An account's schedules with the last firing of each; of one user if one is given.
READ = f"""
SELECT {COLUMNS}, to_jsonb(last) AS last
FROM schedules LEFT JOIN LATERAL (
    SELECT {firings.COLUMNS}, jobs.state AS job_state, responses.id AS response_id
    FROM firings
    LEFT JOIN all_jobs AS jobs ON jobs.id = firings.job_id
    LEFT JOIN responses ON responses.job_id = firings.job_id
    WHERE firings.schedule_id = schedules.id ORDER BY firings.id DESC LIMIT 1
) AS last ON true
WHERE schedules.account_id = %(account_id)s AND (%(user_id)s::text IS NULL OR schedules.user_id = %(user_id)s)
  AND (%(id)s::text IS NULL OR schedules.id = %(id)s)
  AND (%(after)s::text IS NULL OR schedules.id < %(after)s)
ORDER BY schedules.id DESC LIMIT %(limit)s
"""


def read(connection: Connection, schedule_id: str, account_id: str, *, user_id: str | None = None) -> Schedule | None:
    """Return the schedule if it belongs to the account, and to the user if one is given."""
    parameters = {"id": schedule_id, "account_id": account_id, "user_id": user_id, "after": None, "limit": 1}
    row = fetch_one(connection, READ, parameters)
    return _schedule(row) if row else None


def list_schedules(
    connection: Connection, account_id: str, *, user_id: str | None = None, after: str | None = None, limit: int = 20
) -> list[Schedule]:
    """Return at most `limit` schedules of an account, or of one of its users, newest first, older than `after`."""
    parameters = {"id": None, "account_id": account_id, "user_id": user_id, "after": after, "limit": limit}
    return [_schedule(row) for row in fetch_all(connection, READ, parameters)]


LOCK = f"""
SELECT {COLUMNS} FROM schedules
WHERE id = %(id)s AND account_id = %(account_id)s AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s) FOR UPDATE
"""


def lock(connection: Connection, schedule_id: str, account_id: str, *, user_id: str | None = None) -> Schedule | None:
    """Return the schedule and lock it: it neither fires nor changes before the transaction ends."""
    row = fetch_one(connection, LOCK, {"id": schedule_id, "account_id": account_id, "user_id": user_id})
    return _schedule(row) if row else None


UPDATE = """
UPDATE schedules SET name = %(name)s, kind = %(kind)s, asked = %(asked)s, plan = %(plan)s, trigger = %(trigger)s,
                     if_missed = %(if_missed)s, grace_seconds = %(grace_seconds)s, paused_at = %(paused_at)s,
                     next_fire_at = %(next_fire_at)s, planned_at = %(planned_at)s, updated_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s
"""


def update(connection: Connection, schedule: Schedule) -> None:
    """Store a schedule that the caller has locked."""
    connection.execute(UPDATE, _values(schedule))


DELETE = """
DELETE FROM schedules
WHERE id = %(id)s AND account_id = %(account_id)s AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
"""


def delete(connection: Connection, schedule_id: str, account_id: str, *, user_id: str | None = None) -> bool:
    """Delete a schedule with its firings. Returns whether there was one."""
    parameters = {"id": schedule_id, "account_id": account_id, "user_id": user_id}
    return connection.execute(DELETE, parameters).rowcount > 0


# Due schedules, the longest due first, and those planned by a clock that was set back since. A process fires only the
# kinds that it knows: others, of another version, fire the rest.
DUE = """
SELECT id, account_id, user_id FROM schedules
WHERE kind = ANY(%(kinds)s) AND next_fire_at IS NOT NULL
  AND (next_fire_at <= coalesce(%(now)s::timestamptz, now())
       OR planned_at > coalesce(%(now)s::timestamptz, now()) + interval '1 minute')
ORDER BY next_fire_at, id LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class DueSchedule:
    """The columns of a due schedule that are needed to lock it."""

    id: str
    account_id: str
    user_id: str | None


def list_due(
    connection: Connection, kinds: Sequence[str], limit: int, now: datetime | None = None
) -> list[DueSchedule]:
    """Return at most `limit` due schedules. Tests pass `now` in place of the database's clock."""
    return [
        DueSchedule(**row) for row in fetch_all(connection, DUE, {"kinds": list(kinds), "limit": limit, "now": now})
    ]


# Locks the account first, in the order in which removing a member and checking the quota do, so that there is no
# deadlock.
LOCK_ACCOUNT = f"""
SELECT memberships.role, users.operator, {EFFECTIVE_LIMITS} AS limits,
       accounts.billed_since IS NOT NULL AS billed
FROM accounts
JOIN plans ON plans.id = accounts.plan_id
JOIN memberships ON memberships.account_id = accounts.id AND memberships.user_id = %(user_id)s
JOIN users ON users.id = memberships.user_id
WHERE accounts.id = %(account_id)s AND accounts.erased_at IS NULL
FOR NO KEY UPDATE OF accounts
"""


def lock_auth_context(connection: Connection, account_id: str, user_id: str) -> AuthContext | None:
    """Return the user's caller and the account's limits, and lock the account; None if the user has left it."""
    row = fetch_one(connection, LOCK_ACCOUNT, {"account_id": account_id, "user_id": user_id})
    if row is None:
        return None
    caller = Caller(user_id, account_id, Role(row["role"]), operator=row["operator"])
    return AuthContext(caller, plans.parse_limits(row["limits"]), row["billed"])


LOCK_IF_DUE = f"""
SELECT {COLUMNS} FROM schedules WHERE id = %(id)s AND next_fire_at IS NOT NULL FOR UPDATE SKIP LOCKED
"""


def lock_if_due(connection: Connection, schedule_id: str) -> Schedule | None:
    """Return the schedule and lock it; None if another process holds it, or it has no next time."""
    row = fetch_one(connection, LOCK_IF_DUE, {"id": schedule_id})
    return _schedule(row) if row else None


SET_NEXT_FIRE = "UPDATE schedules SET next_fire_at = %(next_fire_at)s, planned_at = %(now)s WHERE id = %(id)s"


def set_next_fire(connection: Connection, schedule_id: str, next_fire_at: datetime | None, now: datetime) -> None:
    """Store when a locked schedule fires next."""
    connection.execute(SET_NEXT_FIRE, {"id": schedule_id, "next_fire_at": next_fire_at, "now": now})


# The platform's own. The next time is kept unless the trigger has changed.
UPSERT = """
INSERT INTO schedules (id, account_id, name, kind, trigger, if_missed, grace_seconds, next_fire_at, planned_at)
VALUES (%(id)s, %(account_id)s, %(name)s, %(kind)s, %(trigger)s, %(if_missed)s, %(grace_seconds)s, %(next_fire_at)s,
        %(planned_at)s)
ON CONFLICT (id) DO UPDATE SET
    next_fire_at = CASE WHEN schedules.trigger = excluded.trigger
                        THEN schedules.next_fire_at ELSE excluded.next_fire_at END,
    planned_at = CASE WHEN schedules.trigger = excluded.trigger
                      THEN schedules.planned_at ELSE excluded.planned_at END,
    trigger = excluded.trigger, if_missed = excluded.if_missed, grace_seconds = excluded.grace_seconds
WHERE (schedules.trigger, schedules.if_missed, schedules.grace_seconds)
      IS DISTINCT FROM (excluded.trigger, excluded.if_missed, excluded.grace_seconds)
"""


def upsert_platform_schedule(connection: Connection, schedule: Schedule) -> None:
    """Insert or update a schedule of the platform's own."""
    connection.execute(UPSERT, _values(schedule))


ALL = f"""
SELECT {COLUMNS}, to_jsonb(last) AS last
FROM schedules LEFT JOIN LATERAL (
    SELECT {firings.COLUMNS}, jobs.state AS job_state, NULL::text AS response_id
    FROM firings LEFT JOIN all_jobs AS jobs ON jobs.id = firings.job_id
    WHERE firings.schedule_id = schedules.id ORDER BY firings.id DESC LIMIT 1
) AS last ON true
WHERE %(account_id)s::text IS NULL OR schedules.account_id = %(account_id)s
ORDER BY schedules.next_fire_at NULLS LAST, schedules.id LIMIT %(limit)s
"""


def list_all(connection: Connection, limit: int, account_id: str | None = None) -> list[Schedule]:
    """Return at most `limit` schedules of all accounts, or of one, the next to fire first. For operators only."""
    return [_schedule(row) for row in fetch_all(connection, ALL, {"limit": limit, "account_id": account_id})]


def _values(schedule: Schedule) -> dict[str, Any]:
    values = {field.name: getattr(schedule, field.name) for field in fields(Schedule) if field.name != "last"}
    return {**values, **{name: Jsonb(values[name]) for name in ("asked", "plan", "trigger")}}


def _schedule(row: Mapping[str, Any]) -> Schedule:
    return Schedule(**{**row, "last": parse_firing(row["last"]) if row.get("last") else None})

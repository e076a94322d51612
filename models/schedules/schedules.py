"""Schedules: what is to happen, when, and for whom. `next_fire_at` is the truth: whoever finds it in the past may fire.

What a trigger means and what a firing starts stand in `pipelines/schedules/`; what came of it, in `models/schedules/firings.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.access.auth_context import AuthContext
from models.accounts import plans
from models.accounts.accounts import Caller, Role
from models.platform.database import Connection, fetch_all, fetch_one
from models.schedules.firings import Firing, parse_firing

IfMissed = Literal["run_once", "skip"]
ScheduleStatus = Literal["active", "paused", "ended"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A row of `schedules`, and the last time it fired, where that was asked for.

    user_id        whom it acts for; None for the platform's own
    kind           of the work
    asked, plan    the work, in the words of who asked for it, and of what starts it
    grace_seconds  a firing that is later than this was missed
    next_fire_at   None: it is paused, or there is no next time
    planned_at     when that was worked out
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
        """Whether it will fire, and why not."""
        if self.paused_at is not None:
            return "paused"
        return "active" if self.next_fire_at is not None else "ended"


def database_time(connection: Connection) -> datetime:
    """The time by which everything fires: the database's, which all replicas share."""
    row = fetch_one(connection, "SELECT now() AS now")
    assert row is not None
    now: datetime = row["now"]
    return now


# A maker's place, held to the end of the transaction, and how many schedules they have there.
HOLD_MAKER = "SELECT FROM memberships WHERE account_id = %(account_id)s AND user_id = %(user_id)s FOR UPDATE"
COUNT = "SELECT count(*)::int AS count FROM schedules WHERE account_id = %(account_id)s AND user_id = %(user_id)s"


def lock_and_count(connection: Connection, account_id: str, user_id: str) -> int:
    """How many schedules a member has; nobody adds one before the transaction ends."""
    names = {"account_id": account_id, "user_id": user_id}
    connection.execute(HOLD_MAKER, names)
    row = fetch_one(connection, COUNT, names)
    return int(row["count"]) if row else 0


# A request that is repeated brings the same id, and finds what it made.
INSERT = """
INSERT INTO schedules (id, account_id, user_id, name, kind, asked, plan, trigger, if_missed, grace_seconds, paused_at,
                       next_fire_at, planned_at, created_at, updated_at)
VALUES (%(id)s, %(account_id)s, %(user_id)s, %(name)s, %(kind)s, %(asked)s, %(plan)s, %(trigger)s, %(if_missed)s,
        %(grace_seconds)s, %(paused_at)s, %(next_fire_at)s, %(planned_at)s, %(created_at)s, %(updated_at)s)
ON CONFLICT (id) DO NOTHING
"""


def insert(connection: Connection, schedule: Schedule) -> bool:
    """Store a new schedule. Returns whether it was not there before."""
    return connection.execute(INSERT, _values(schedule)).rowcount > 0


# An account's schedules with the last firing of each; of one member only where they may see no others'.
READ = """
SELECT schedules.*, to_jsonb(last) AS last
FROM schedules LEFT JOIN LATERAL (
    SELECT firings.*, jobs.state AS job_state, responses.id AS response_id
    FROM firings
    LEFT JOIN jobs ON jobs.id = firings.job_id
    LEFT JOIN responses ON responses.job_id = firings.job_id
    WHERE firings.schedule_id = schedules.id ORDER BY firings.id DESC LIMIT 1
) AS last ON true
WHERE schedules.account_id = %(account_id)s AND (%(user_id)s::text IS NULL OR schedules.user_id = %(user_id)s)
  AND (%(id)s::text IS NULL OR schedules.id = %(id)s)
  AND (%(after)s::text IS NULL OR schedules.id < %(after)s)
ORDER BY schedules.id DESC LIMIT %(limit)s
"""


def read(connection: Connection, schedule_id: str, account_id: str, *, user_id: str | None = None) -> Schedule | None:
    """The schedule, if the account has it, and the user if one is given."""
    names = {"id": schedule_id, "account_id": account_id, "user_id": user_id, "after": None, "limit": 1}
    row = fetch_one(connection, READ, names)
    return _schedule(row) if row else None


def list_schedules(
    connection: Connection, account_id: str, *, user_id: str | None = None, after: str | None = None, limit: int = 20
) -> list[Schedule]:
    """At most `limit` schedules of an account, or of one of its users, that were made before `after`."""
    names = {"id": None, "account_id": account_id, "user_id": user_id, "after": after, "limit": limit}
    return [_schedule(row) for row in fetch_all(connection, READ, names)]


LOCK = """
SELECT * FROM schedules
WHERE id = %(id)s AND account_id = %(account_id)s AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s) FOR UPDATE
"""


def lock(connection: Connection, schedule_id: str, account_id: str, *, user_id: str | None = None) -> Schedule | None:
    """The schedule, which neither fires nor changes before the transaction ends."""
    row = fetch_one(connection, LOCK, {"id": schedule_id, "account_id": account_id, "user_id": user_id})
    return _schedule(row) if row else None


WRITE = """
UPDATE schedules SET name = %(name)s, kind = %(kind)s, asked = %(asked)s, plan = %(plan)s, trigger = %(trigger)s,
                     if_missed = %(if_missed)s, grace_seconds = %(grace_seconds)s, paused_at = %(paused_at)s,
                     next_fire_at = %(next_fire_at)s, planned_at = %(planned_at)s, updated_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s
"""


def update(connection: Connection, schedule: Schedule) -> None:
    """Store a schedule that was locked before."""
    connection.execute(WRITE, _values(schedule))


DELETE = """
DELETE FROM schedules
WHERE id = %(id)s AND account_id = %(account_id)s AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
"""


def delete(connection: Connection, schedule_id: str, account_id: str, *, user_id: str | None = None) -> bool:
    """Forget a schedule with its history. Returns whether there was one."""
    names = {"id": schedule_id, "account_id": account_id, "user_id": user_id}
    return connection.execute(DELETE, names).rowcount > 0


# What should have fired by now, the longest due first; and what was planned by a clock that has gone back since. A
# process fires only what it knows how to start: others, of another version, know the rest.
DUE = """
SELECT id, account_id, user_id FROM schedules
WHERE kind = ANY(%(kinds)s) AND next_fire_at IS NOT NULL
  AND (next_fire_at <= coalesce(%(now)s::timestamptz, now())
       OR planned_at > coalesce(%(now)s::timestamptz, now()) + interval '1 minute')
ORDER BY next_fire_at, id LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class DueSchedule:
    """A schedule whose time has come, as far as it must be known before it can be locked."""

    id: str
    account_id: str
    user_id: str | None


def list_due(
    connection: Connection, kinds: Sequence[str], limit: int, now: datetime | None = None
) -> list[DueSchedule]:
    """At most `limit` schedules whose time has come. `now` stands for the database's clock, in tests."""
    return [
        DueSchedule(**row) for row in fetch_all(connection, DUE, {"kinds": list(kinds), "limit": limit, "now": now})
    ]


# The account first, as those lock it who remove a member or look at the quota; then nobody waits for another in turn.
HOLD_ACCOUNT = """
SELECT memberships.role, plans.limits || accounts.limits AS limits
FROM accounts
JOIN plans ON plans.id = accounts.plan_id
JOIN memberships ON memberships.account_id = accounts.id AND memberships.user_id = %(user_id)s
WHERE accounts.id = %(account_id)s AND accounts.erased_at IS NULL
FOR NO KEY UPDATE OF accounts
"""


def lock_auth_context(connection: Connection, account_id: str, user_id: str) -> AuthContext | None:
    """Who somebody is in the account now, and what it may use; None for who has left. Nobody leaves meanwhile."""
    row = fetch_one(connection, HOLD_ACCOUNT, {"account_id": account_id, "user_id": user_id})
    return (
        AuthContext(Caller(user_id, account_id, Role(row["role"])), plans.parse_limits(row["limits"])) if row else None
    )


TAKE = "SELECT * FROM schedules WHERE id = %(id)s AND next_fire_at IS NOT NULL FOR UPDATE SKIP LOCKED"


def lock_if_due(connection: Connection, schedule_id: str) -> Schedule | None:
    """A schedule that may fire, locked; None where somebody else has it, or it will not fire any more."""
    row = fetch_one(connection, TAKE, {"id": schedule_id})
    return _schedule(row) if row else None


PLAN = "UPDATE schedules SET next_fire_at = %(next_fire_at)s, planned_at = %(now)s WHERE id = %(id)s"


def set_next_fire(connection: Connection, schedule_id: str, next_fire_at: datetime | None, now: datetime) -> None:
    """Say when a schedule that was taken fires next."""
    connection.execute(PLAN, {"id": schedule_id, "next_fire_at": next_fire_at, "now": now})


# The platform's own. The next time stays unless the trigger is another one.
SETTLE = """
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
    """Store one of the platform's own, unless it stands as it is."""
    connection.execute(SETTLE, _values(schedule))


# Of all accounts: for operators only.
ALL = """
SELECT schedules.*, to_jsonb(last) AS last
FROM schedules LEFT JOIN LATERAL (
    SELECT firings.*, jobs.state AS job_state, NULL::text AS response_id
    FROM firings LEFT JOIN jobs ON jobs.id = firings.job_id
    WHERE firings.schedule_id = schedules.id ORDER BY firings.id DESC LIMIT 1
) AS last ON true
WHERE %(account_id)s::text IS NULL OR schedules.account_id = %(account_id)s
ORDER BY schedules.next_fire_at NULLS LAST, schedules.id LIMIT %(limit)s
"""


def list_all(connection: Connection, limit: int, account_id: str | None = None) -> list[Schedule]:
    """Schedules of whatever account, or of one, those that fire next first."""
    return [_schedule(row) for row in fetch_all(connection, ALL, {"limit": limit, "account_id": account_id})]


def _values(schedule: Schedule) -> dict[str, Any]:
    values = {field.name: getattr(schedule, field.name) for field in fields(Schedule) if field.name != "last"}
    return {**values, **{name: Jsonb(values[name]) for name in ("asked", "plan", "trigger")}}


def _schedule(row: Mapping[str, Any]) -> Schedule:
    return Schedule(**{**row, "last": parse_firing(row["last"]) if row.get("last") else None})

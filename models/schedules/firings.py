"""Firings: the history of schedules. One row a schedule and time, inserted in the transaction of what it started."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.jobs.jobs import State
from models.platform.database import Connection, fetch_all, fetch_one

FiringStatus = Literal["started", "skipped", "refused"]


@dataclass(frozen=True, slots=True)
class Firing:
    """A time at which a schedule fired.

    fire_time     when it should have been; `fired_at` is when it was
    missed_since  the first of the missed times for which it stands; None: nothing was missed
    status        whether it started a job; was missed and skipped; or was refused, with an `error`
    job_state     of the job now; None: there was none, or it is gone
    response_id   of the turn that the job runs
    """

    id: str
    schedule_id: str
    account_id: str
    fire_time: datetime
    fired_at: datetime
    missed_since: datetime | None
    status: FiringStatus
    job_id: str | None
    error: dict[str, Any] | None
    job_state: State | None = None
    response_id: str | None = None


# The unique constraint has the last word: a second firing at this time breaks the transaction that would start its job.
INSERT = """
INSERT INTO firings (id, schedule_id, account_id, fire_time, fired_at, missed_since, status, job_id, error)
VALUES (%(id)s, %(schedule_id)s, %(account_id)s, %(fire_time)s, %(fired_at)s, %(missed_since)s, %(status)s, %(job_id)s,
        %(error)s)
"""


def insert(connection: Connection, fired: Firing) -> None:
    """Note a firing. Raises UniqueViolation where the schedule has fired at this time."""
    error = None if fired.error is None else Jsonb(fired.error)
    names = ("id", "schedule_id", "account_id", "fire_time", "fired_at", "missed_since", "status", "job_id")
    connection.execute(INSERT, {**{name: getattr(fired, name) for name in names}, "error": error})


EXISTS = "SELECT FROM firings WHERE schedule_id = %(schedule_id)s AND fire_time = %(fire_time)s"


def exists(connection: Connection, schedule_id: str, fire_time: datetime) -> bool:
    """Whether the schedule has fired at this time, as after a clock that went ahead and came back."""
    return fetch_one(connection, EXISTS, {"schedule_id": schedule_id, "fire_time": fire_time}) is not None


# A page of a schedule's history, newest first.
LIST = """
SELECT firings.*, jobs.state AS job_state, responses.id AS response_id
FROM firings
LEFT JOIN jobs ON jobs.id = firings.job_id AND jobs.account_id = firings.account_id
LEFT JOIN responses ON responses.job_id = firings.job_id AND responses.account_id = firings.account_id
WHERE firings.schedule_id = %(schedule_id)s AND firings.account_id = %(account_id)s
  AND (%(after)s::text IS NULL OR firings.id < %(after)s)
ORDER BY firings.id DESC LIMIT %(limit)s
"""


def list_firings(
    connection: Connection, schedule_id: str, account_id: str, *, after: str | None = None, limit: int = 20
) -> list[Firing]:
    """At most `limit` firings of an account's schedule, from before the firing `after`."""
    names = {"schedule_id": schedule_id, "account_id": account_id, "after": after, "limit": limit}
    return [Firing(**row) for row in fetch_all(connection, LIST, names)]


#: Days that the history of a schedule goes back.
KEPT_DAYS = 90

PRUNE = """
DELETE FROM firings WHERE id IN (
    SELECT id FROM firings WHERE fired_at < now() - make_interval(days => %(days)s) LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete a batch of what is older than KEPT_DAYS; returns how many."""
    return connection.execute(PRUNE, {"days": KEPT_DAYS, "batch": batch}).rowcount


def parse_firing(row: Mapping[str, Any]) -> Firing:
    """A firing that came as JSON."""
    times = ("fire_time", "fired_at", "missed_since")
    return Firing(**{**row, **{name: datetime.fromisoformat(row[name]) for name in times if row[name]}})

"""The firings of schedules: one row per schedule and time, inserted in the transaction of the job that it starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.jobs.jobs import JobState
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns

FiringStatus = Literal["started", "skipped", "refused"]


@dataclass(frozen=True, slots=True)
class Firing:
    """A firing of a schedule.

    fire_time     when it was due; `fired_at` is when it happened
    missed_since  the first of the missed times that it replaces; None: none was missed
    status        it started a job; was missed and skipped; or was refused, with an `error`
    job_state     the present state of the job; None: no job, or it was deleted
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
    job_state: JobState | None = None
    response_id: str | None = None


#: The columns of `firings`; the other fields are joined.
COLUMNS = columns(Firing, "firings", omit=("job_state", "response_id"))


# The unique constraint prevents a second firing at this time: it rolls back the transaction that would start the job.
INSERT = """
INSERT INTO firings (id, schedule_id, account_id, fire_time, fired_at, missed_since, status, job_id, error)
VALUES (%(id)s, %(schedule_id)s, %(account_id)s, %(fire_time)s, %(fired_at)s, %(missed_since)s, %(status)s, %(job_id)s,
        %(error)s)
"""


def insert(connection: Connection, firing: Firing) -> None:
    """Insert a firing. Raises UniqueViolation if the schedule has fired at this time."""
    error = None if firing.error is None else Jsonb(firing.error)
    names = ("id", "schedule_id", "account_id", "fire_time", "fired_at", "missed_since", "status", "job_id")
    connection.execute(INSERT, {**{name: getattr(firing, name) for name in names}, "error": error})


EXISTS = "SELECT FROM firings WHERE schedule_id = %(schedule_id)s AND fire_time = %(fire_time)s"


def exists(connection: Connection, schedule_id: str, fire_time: datetime) -> bool:
    """Return whether the schedule has fired at this time, such as before the clock was set back."""
    return fetch_one(connection, EXISTS, {"schedule_id": schedule_id, "fire_time": fire_time}) is not None


LIST = f"""
SELECT {COLUMNS}, jobs.state AS job_state, responses.id AS response_id
FROM firings
LEFT JOIN all_jobs AS jobs ON jobs.id = firings.job_id AND jobs.account_id = firings.account_id
LEFT JOIN responses ON responses.job_id = firings.job_id AND responses.account_id = firings.account_id
WHERE firings.schedule_id = %(schedule_id)s AND firings.account_id = %(account_id)s
  AND (%(after)s::text IS NULL OR firings.id < %(after)s)
ORDER BY firings.id DESC LIMIT %(limit)s
"""


def list_firings(
    connection: Connection, schedule_id: str, account_id: str, *, after: str | None = None, limit: int = 20
) -> list[Firing]:
    """Return at most `limit` firings of an account's schedule, newest first, older than the firing `after`."""
    parameters = {"schedule_id": schedule_id, "account_id": account_id, "after": after, "limit": limit}
    return [Firing(**row) for row in fetch_all(connection, LIST, parameters)]


#: Days for which firings are kept.
KEPT_DAYS = 90

PRUNE = """
DELETE FROM firings WHERE id IN (
    SELECT id FROM firings WHERE fired_at < now() - make_interval(days => %(days)s) LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete a batch of firings older than KEPT_DAYS. Returns how many."""
    return connection.execute(PRUNE, {"days": KEPT_DAYS, "batch": batch}).rowcount


def parse_firing(row: Mapping[str, Any]) -> Firing:
    """Parse a firing from JSON."""
    times = ("fire_time", "fired_at", "missed_since")
    return Firing(**{**row, **{name: datetime.fromisoformat(row[name]) for name in times if row[name]}})

"""The reports that were asked for: a row each, whose job builds the file.

The row has the request in full, so that the job depends on nothing else. A row and its file are kept for KEPT_DAYS.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.jobs.jobs import JobState
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns

#: Days for which a report and its file are kept.
KEPT_DAYS = 30

#: Whose data a report has: one user's, or that of the whole account, which only admins read.
ReportScope = Literal["user", "account"]

ReportFormat = Literal["json", "csv", "parquet", "html", "pdf"]

ReportStatus = Literal["queued", "in_progress", "completed", "failed", "cancelled"]

#: The status of a report whose job has not completed it.
STATUSES: Mapping[str | None, ReportStatus] = {
    "scheduled": "queued",
    "queued": "queued",
    "running": "in_progress",
    "waiting": "in_progress",
    "cancelled": "cancelled",
}


@dataclass(frozen=True, slots=True)
class Report:
    """A row of `reports` with columns of its job.

    account_id   whose report it is; the platform's: one of operators
    user_id      who asked for it, or whose schedule did
    asked        the request as it was sent
    query        what to build, see `pipelines.reporting.report_request`
    deliver_to   the users who get it by e-mail
    file_id      of its file; None until it is completed
    outcome      the file's rows and bytes, and the time of its snapshot
    """

    id: str
    account_id: str
    user_id: str
    scope: ReportScope
    job_id: str
    schedule_id: str | None
    asked: dict[str, Any]
    query: dict[str, Any]
    format: ReportFormat
    deliver_to: list[str]
    file_id: str | None
    outcome: dict[str, Any]
    created_at: datetime
    completed_at: datetime | None
    expires_at: datetime
    job_state: JobState | None = None
    progress: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @property
    def status(self) -> ReportStatus:
        """The status for the user. A job that is no longer kept has failed, unless it has completed the report."""
        return "completed" if self.file_id is not None else STATUSES.get(self.job_state, "failed")


#: The columns of `reports`; the other fields are those of the job.
COLUMNS = columns(Report, "reports", omit=("job_state", "progress", "error"))

#: Fields that the caller of `insert` sets.
NEW = ("id", "account_id", "user_id", "scope", "job_id", "schedule_id", "asked", "query", "format", "deliver_to")

INSERT = f"""
INSERT INTO reports ({", ".join(NEW)}, expires_at)
VALUES ({", ".join(f"%({name})s" for name in NEW)}, now() + make_interval(days => %(days)s))
ON CONFLICT (id) DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class NewReport:
    """A report to insert. See Report."""

    id: str
    account_id: str
    user_id: str
    scope: ReportScope
    job_id: str
    asked: Mapping[str, Any]
    query: Mapping[str, Any]
    format: ReportFormat
    deliver_to: Sequence[str] = ()
    schedule_id: str | None = None


def insert(connection: Connection, new: NewReport) -> bool:
    """Insert a report. Returns False if its id exists: the request is a repeated one."""
    values = {name: getattr(new, name) for name in NEW}
    json = {"asked": Jsonb(new.asked), "query": Jsonb(new.query), "deliver_to": list(new.deliver_to)}
    return connection.execute(INSERT, {**values, **json, "days": KEPT_DAYS}).rowcount > 0


SELECT = f"""
SELECT {COLUMNS}, jobs.state AS job_state, jobs.progress, jobs.error
FROM reports LEFT JOIN all_jobs AS jobs ON jobs.id = job_id
WHERE reports.account_id = %(account_id)s AND reports.expires_at > now()
  AND (%(owner_id)s::text IS NULL OR (reports.user_id = %(owner_id)s AND scope = 'user'))
"""

READ = SELECT + " AND reports.id = %(id)s"


def read(connection: Connection, report_id: str, account_id: str, *, owner_id: str | None = None) -> Report | None:
    """Return a report of an account. With `owner_id` only one of this user's own data."""
    row = fetch_one(connection, READ, {"id": report_id, "account_id": account_id, "owner_id": owner_id})
    return Report(**row) if row else None


LIST = (
    SELECT
    + """
  AND (%(after)s::text IS NULL OR reports.id < %(after)s)
  AND (%(kind)s::text IS NULL OR query ->> 'kind' = %(kind)s)
ORDER BY reports.id DESC LIMIT %(limit)s
"""
)


def page(
    connection: Connection,
    account_id: str,
    *,
    owner_id: str | None = None,
    kind: str | None = None,
    after: str | None = None,
    limit: int = 20,
) -> list[Report]:
    """Return at most `limit` reports, newest first, older than the report `after`. See `read`."""
    names = {"account_id": account_id, "owner_id": owner_id, "kind": kind, "after": after, "limit": limit}
    return [Report(**row) for row in fetch_all(connection, LIST, names)]


# In the transaction that ends the job. The file of a report that was deleted meanwhile expires at once.
COMPLETE = """
WITH completed AS (
    UPDATE reports SET file_id = %(file_id)s, outcome = %(outcome)s, completed_at = now()
    WHERE id = %(id)s AND account_id = %(account_id)s
    RETURNING id
)
UPDATE files SET expires_at = now()
WHERE id = %(file_id)s AND account_id = %(account_id)s AND NOT EXISTS (SELECT FROM completed)
"""


def complete(connection: Connection, report_id: str, account_id: str, file_id: str, outcome: Mapping[str, Any]) -> None:
    """Record the file of a report."""
    values = {"id": report_id, "account_id": account_id, "file_id": file_id, "outcome": Jsonb(outcome)}
    connection.execute(COMPLETE, values)


def delete(connection: Connection, report_id: str, account_id: str) -> None:
    """Delete a report's row. The caller has deleted its file before."""
    connection.execute(
        "DELETE FROM reports WHERE id = %(id)s AND account_id = %(account_id)s",
        {"id": report_id, "account_id": account_id},
    )


PRUNE = """
DELETE FROM reports WHERE id IN (SELECT id FROM reports WHERE expires_at < now() ORDER BY expires_at LIMIT %(limit)s)
"""


def prune(connection: Connection, limit: int) -> int:
    """Delete at most `limit` expired reports. Returns how many. Their files expire by themselves."""
    return connection.execute(PRUNE, {"limit": limit}).rowcount

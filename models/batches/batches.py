"""The batches of accounts: a file of requests, and what has become of them.

    validating → in_progress → finalizing → completed | failed | expired
                      └──► cancelling ──────► cancelled

A batch is changed by the attempts of its job only, in transactions that lock the job first (`models.jobs.fence`), and
by a cancellation. `ends_as` is decided when its lines stop, before their files are written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.accounts.ownership import Access, owned
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns

BatchStatus = Literal[
    "validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"
]

#: How a batch ends.
BatchEnd = Literal["completed", "failed", "expired", "cancelled"]

#: Days after its end for which a batch is shown.
KEPT_DAYS = 365

#: The kind of a batch's job.
KIND = "batch.run"

#: The argument of the jobs of lines that names their batch.
BATCH_ARGUMENT = "of_batch"


@dataclass(frozen=True, slots=True)
class Batch:
    """A row of `batches`.

    key_rights      what the API key that has created it may do; None: a session has
    errors          of the validation: code, message, param, line
    output_seconds  after which the files of its results expire; None: never
    read_bytes      of the input file, while it is validated; `read_lines` are those, blank ones included
    begun_lines     lines begin in order, so that these are the first ones
    """

    id: str
    account_id: str
    user_id: str | None
    key_rights: dict[str, Any] | None
    job_id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    metadata: dict[str, str]
    status: BatchStatus
    ends_as: BatchEnd | None
    errors: Sequence[Mapping[str, Any]]
    output_seconds: int | None
    output_file_id: str | None
    error_file_id: str | None
    read_bytes: int
    read_lines: int
    total_lines: int
    begun_lines: int
    completed_lines: int
    failed_lines: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    created_at: datetime
    expires_at: datetime
    in_progress_at: datetime | None
    finalizing_at: datetime | None
    cancelling_at: datetime | None
    ended_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.ended_at is not None

    @property
    def ended_lines(self) -> int:
        """The lines that have an answer or an error."""
        return self.completed_lines + self.failed_lines

    @property
    def running_lines(self) -> int:
        """The lines that have begun and not ended."""
        return self.begun_lines - self.ended_lines


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch to insert; see Batch. `window_seconds` are those of its completion window."""

    id: str
    account_id: str
    user_id: str | None
    key_rights: Mapping[str, Any] | None
    job_id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    window_seconds: int
    metadata: Mapping[str, str]
    output_seconds: int | None


COLUMNS = columns(Batch, "batches")

INSERT = """
INSERT INTO batches (id, account_id, user_id, key_rights, job_id, endpoint, input_file_id, completion_window, metadata,
                     output_seconds, expires_at)
VALUES (%(id)s, %(account_id)s, %(user_id)s, %(key_rights)s, %(job_id)s, %(endpoint)s, %(input_file_id)s,
        %(completion_window)s, %(metadata)s, %(output_seconds)s, now() + make_interval(secs => %(window_seconds)s))
ON CONFLICT (id) DO NOTHING
RETURNING id
"""


def insert(connection: Connection, new: NewBatch) -> bool:
    """Insert a batch in the transaction that enqueues its job. Returns False if its id exists."""
    parameters = {field: getattr(new, field) for field in NewBatch.__slots__}
    rights = Jsonb(dict(new.key_rights)) if new.key_rights is not None else None
    changed = {"key_rights": rights, "metadata": Jsonb(dict(new.metadata))}
    return fetch_one(connection, INSERT, {**parameters, **changed}) is not None


ACCESSIBLE = owned("batches.account_id", "batches.user_id")

READ = f"SELECT {COLUMNS} FROM batches WHERE batches.id = %(id)s AND {ACCESSIBLE}"


def read(connection: Connection, batch_id: str, access: Access) -> Batch | None:
    """Return the batch if the caller has access to it."""
    row = fetch_one(connection, READ, {"id": batch_id, **access.parameters})
    return Batch(**row) if row else None


LIST = f"""
SELECT {COLUMNS} FROM batches
WHERE {ACCESSIBLE} AND (%(after)s::text IS NULL OR batches.id < %(after)s)
ORDER BY batches.id DESC LIMIT %(limit)s
"""


def page(connection: Connection, access: Access, *, after: str | None = None, limit: int = 20) -> list[Batch]:
    """Return at most `limit` batches that the caller has access to, newest first, older than the batch `after`."""
    rows = fetch_all(connection, LIST, {**access.parameters, "after": after, "limit": limit})
    return [Batch(**row) for row in rows]


PRUNE = """
DELETE FROM batches WHERE id IN (
    SELECT id FROM batches WHERE ended_at < now() - make_interval(days => %(days)s) LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete at most `batch` batches that ended KEPT_DAYS ago. Returns how many."""
    return connection.execute(PRUNE, {"days": KEPT_DAYS, "batch": batch}).rowcount


# Its job waits for lines to end: it is to look now. First, since its attempts lock the job before the batch.
WAKE = """
UPDATE jobs SET state = 'queued', run_at = now(), published_at = NULL
WHERE id = %(job_id)s AND account_id = %(account_id)s AND state = 'scheduled'
"""

CANCEL = """
UPDATE batches SET status = 'cancelling', ends_as = 'cancelled', cancelling_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s AND status IN ('validating', 'in_progress')
"""


def cancel(connection: Connection, batch: Batch) -> None:
    """Let a batch that is validated or in progress be cancelled, in the caller's transaction. Nudge the relay then."""
    parameters = {"id": batch.id, "account_id": batch.account_id, "job_id": batch.job_id}
    connection.execute(WAKE, parameters)
    connection.execute(CANCEL, parameters)

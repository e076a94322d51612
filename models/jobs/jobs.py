"""Jobs: the catalogue of the kinds of work, and the record that each piece of work is.

The row is the truth; a message is a nudge that carries only its id. What happens to a row stands beside this file:
`outbox` publishes it, `attempts` claims and ends it, `cancellation` stops it, `journal` tells its story.

    queued ──claim──► running ──► completed | failed | cancelled | dead
      ▲ ▲                │ │
      │ └─retry, release─┘ └─spawn─► waiting
      └────────last child ends────────┘
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from psycopg import Cursor
from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from models.jobs.catalogue import CATALOGUE
from models.journal.archive import archive
from models.journal.events import Event
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.ids import new_id

State = Literal["queued", "running", "waiting", "completed", "failed", "cancelled", "dead"]

#: The states that a job never leaves.
ENDED: frozenset[str] = frozenset({"completed", "failed", "cancelled", "dead"})

#: The account that owns the platform's own work.
PLATFORM_ACCOUNT = "platform"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to insert. `opening` is what its journal begins with, known before any worker has moved.

    reserved_tokens  its worst case, held against the account's monthly quota while the job is unfinished
    gathers          it does all that has gathered under its serial key: while one like it is still queued, no second
                     one is inserted
    """

    kind: str
    account_id: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: new_id("job"))
    run_at: datetime | None = None
    serial_key: str | None = None
    unique_key: str | None = None
    opening: Sequence[Event] = ()
    reserved_tokens: int = 0
    coalesce: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A row of `jobs`."""

    id: str
    account_id: str
    kind: str
    queue: str
    arguments: dict[str, Any]
    state: State
    run_at: datetime
    published_at: datetime | None
    serial_key: str | None
    unique_key: str | None
    parent_id: str | None
    pending_children: int
    attempt: int
    failures: int
    crashes: int
    message_id: str | None
    worker: str | None
    lease_until: datetime | None
    cancel_requested_at: datetime | None
    rewound_at: int | None
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    traceback: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    reserved_tokens: int = 0

    @property
    def ended(self) -> bool:
        """Whether the job is in a state that it never leaves."""
        return self.state in ENDED


# A job that is due, unless its unique key is taken.
INSERT = """
INSERT INTO jobs (id, account_id, kind, queue, arguments, run_at, serial_key, unique_key, parent_id, reserved_tokens)
VALUES (%(id)s, %(account_id)s, %(kind)s, %(queue)s, %(arguments)s, coalesce(%(run_at)s, now()),
        %(serial_key)s, %(unique_key)s, %(parent_id)s, %(reserved_tokens)s)
ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING
RETURNING run_at <= now() AS due
"""


# Whoever leaves work to be gathered holds this till the commit; whoever comes to fetch it waits for them.
LEAVE_WORK = "SELECT pg_advisory_xact_lock_shared(hashtextextended('gather ' || %(serial_key)s, 0))"
FETCH_WORK = "SELECT pg_advisory_xact_lock(hashtextextended('gather ' || %(serial_key)s, 0))"

# A job that gathers, unless one waits that will. Where nothing says when, and the account has begun something else
# within the last second, more is to be expected: it waits a second, or five where the account has begun eight things
# within the last two. So a busy account makes one in a while, not one a turn.
INSERT_GATHERING = """
INSERT INTO jobs (id, account_id, kind, queue, arguments, run_at, serial_key, parent_id)
SELECT %(id)s, %(account_id)s, %(kind)s, %(queue)s, %(arguments)s,
       coalesce(%(run_at)s, now() + CASE
           WHEN (SELECT created_at FROM jobs WHERE account_id = %(account_id)s ORDER BY id DESC OFFSET 8 LIMIT 1)
               > now() - interval '2 seconds'
           THEN interval '5 seconds'
           WHEN (SELECT created_at FROM jobs WHERE account_id = %(account_id)s ORDER BY id DESC OFFSET 1 LIMIT 1)
               > now() - interval '1 second'
           THEN interval '1 second' ELSE interval '0' END),
       %(serial_key)s, %(parent_id)s
WHERE NOT EXISTS (SELECT FROM jobs WHERE serial_key = %(serial_key)s AND kind = %(kind)s AND state = 'queued')
RETURNING run_at <= now() AS due
"""


def wait_for_batch_writers(connection: Connection, job: Job) -> None:
    """Wait for those who leave work to a job that gathers, which has been claimed: once this statement is over, all of
    it can be read, and what comes later has a job of its own. For a connection in autocommit."""
    connection.execute(FETCH_WORK, {"serial_key": job.serial_key})


def enqueue(connection: Connection, job: NewJob, *, parent_id: str | None = None) -> bool:
    """Insert a job in the caller's transaction. After its commit, nudge the relay.

    Returns False where its unique key is taken, or another one gathers: then there is such a job already, and nothing
    is inserted. In a `batch` nobody knows yet: jobs with a unique key are not for one.
    """
    return bool(_insert(connection, job, parent_id).rowcount)


@contextmanager
def ignore_duplicate_id() -> Iterator[None]:
    """Around the transaction that inserts a job: where one has its id already it is this one, asked for again."""
    try:
        yield
    except UniqueViolation as error:
        if error.diag.constraint_name != "jobs_pkey":
            raise


def enqueue_many(connection: Connection, jobs: Sequence[NewJob]) -> Callable[[], bool]:
    """Insert jobs in the caller's transaction; answers, when asked after the batch, whether one of them is due now."""
    inserted = [_insert(connection, job, None) for job in jobs]
    return lambda: any(row["due"] for cursor in inserted if (row := cursor.fetchone()))


def _insert(connection: Connection, job: NewJob, parent_id: str | None) -> Cursor[DictRow]:
    if job.coalesce:
        connection.execute(LEAVE_WORK, {"serial_key": job.serial_key})
    inserted = connection.execute(
        INSERT_GATHERING if job.coalesce else INSERT,
        {
            "id": job.id,
            "account_id": job.account_id,
            "kind": job.kind,
            "queue": CATALOGUE[job.kind].queue,
            "arguments": Jsonb(job.arguments),
            "run_at": job.run_at,
            "serial_key": job.serial_key,
            "unique_key": job.unique_key,
            "parent_id": parent_id,
            "reserved_tokens": job.reserved_tokens,
        },
    )
    if inserted.rowcount and job.opening:
        archive(connection, job.id, job.opening)
    return inserted


# One job of an account.
READ = "SELECT * FROM jobs WHERE id = %(id)s AND account_id = %(account_id)s"


def read(connection: Connection, job_id: str, account_id: str) -> Job | None:
    """The job, if the account has it."""
    row = fetch_one(connection, READ, {"id": job_id, "account_id": account_id})
    return Job(**row) if row else None


# A page of an account's jobs, newest first.
LIST = """
SELECT * FROM jobs
WHERE account_id = %(account_id)s
  AND (%(kind)s::text IS NULL OR kind = %(kind)s)
  AND (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(after)s::text IS NULL OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s
"""


def list_jobs(
    connection: Connection,
    account_id: str,
    *,
    kind: str | None = None,
    state: str | None = None,
    after: str | None = None,
    limit: int = 20,
) -> list[Job]:
    """At most `limit` jobs of an account that were born before the job `after`."""
    parameters = {"account_id": account_id, "kind": kind, "state": state, "after": after, "limit": limit}
    return [Job(**row) for row in fetch_all(connection, LIST, parameters)]


# Whatever it says: what must not stay where operators and accounts look.
FORGET_ARGUMENTS = "UPDATE jobs SET arguments = '{}' WHERE id = %(id)s"


def clear_arguments(connection: Connection, job_id: str) -> None:
    """Empty the arguments of a job that ends in the caller's transaction."""
    connection.execute(FORGET_ARGUMENTS, {"id": job_id})


DELETE_ENDED = """
DELETE FROM jobs WHERE id = %(id)s AND account_id = %(account_id)s
  AND state IN ('completed', 'failed', 'cancelled', 'dead')
"""


def delete_ended(connection: Connection, job_id: str, account_id: str) -> bool:
    """Delete an ended job with its journal. Returns whether it was deleted."""
    return connection.execute(DELETE_ENDED, {"id": job_id, "account_id": account_id}).rowcount > 0


# What a parent waited for, in the order of birth.
CHILDREN = "SELECT * FROM jobs WHERE parent_id = %(parent_id)s ORDER BY id"


def children(connection: Connection, parent_id: str) -> list[Job]:
    """All children of a job."""
    return [Job(**row) for row in fetch_all(connection, CHILDREN, {"parent_id": parent_id})]


# Which of these jobs are unfinished.
UNFINISHED = "SELECT id FROM jobs WHERE id = ANY(%(ids)s) AND state IN ('queued', 'running', 'waiting')"


def ended_ids(connection: Connection, job_ids: Sequence[str]) -> set[str]:
    """The ids of those that have ended, or are gone."""
    return set(job_ids) - {row["id"] for row in fetch_all(connection, UNFINISHED, {"ids": list(job_ids)})}

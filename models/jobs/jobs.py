"""The record of a job.

The row is authoritative; a message carries only the job's id. `outbox` publishes rows, `attempts` claims and ends them,
`cancellation` cancels them.

    scheduled ──due──► queued ──claim──► running ──► completed | failed | cancelled | dead
        ▲                ▲ ▲                │ │ │
        │                │ └────release─────┘ │ └─wait_for_children─► waiting
        └────────────────┼───────retry────────┘                          │
                         └───────────children ended, or time is up───────┘
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson
from psycopg import Cursor
from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from models.accounts.ownership import Access, owned
from models.jobs import coalesced
from models.jobs.budgets import Draw, draw_argument
from models.jobs.catalogue import CATALOGUE, batch_queue
from models.jobs.serial_keys import lock_serial_key
from models.journal.archive import archive
from models.journal.events import Event
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.ids import new_id
from models.platform.records import columns
from models.platform.tracing import current_traceparent

JobState = Literal["scheduled", "queued", "running", "waiting", "completed", "failed", "cancelled", "dead"]

#: How many of its children a waiting job needs: all; one that completed; or all, unless one of them failed. A job whose
#: children have all ended continues in any case.
JoinRule = Literal["all", "any", "fail_fast"]

#: The states of a job that has not ended.
UNFINISHED: tuple[JobState, ...] = ("scheduled", "queued", "running", "waiting")

#: The final states.
ENDED: frozenset[str] = frozenset({"completed", "failed", "cancelled", "dead"})

#: The account that owns the platform's own jobs.
PLATFORM_ACCOUNT = "platform"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to insert.

    opening          first events of its journal, written before any attempt
    reserved_tokens  the most tokens that it can use, counted against the account's monthly quota until the job ends
    coalesce         it handles all work left under its serial key, so it is not inserted while one like it is queued
    lane             fairness lane, whose jobs share a window; None: the account's
    deadline_at      the job ends as failed at this time, whatever the number of its attempts
    draw             what it may use of the budget of its tree; for children only, see `wait_for_children`
    owner_id         the user whose job it is; None: its parent's, or the account's own
    input_bytes      bytes of its input that other tables have, such as a turn's items
    batch            it is background work, in the batch queue of its queue
    queue            the queue of its model; None: that of its kind
    first            it passes other jobs of its queue, also those of other lanes: see `models/jobs/outbox.py`

    A coalescing job does the work of all those that are not inserted, so it has nothing that belongs to one of them.
    Raises ValueError for a coalescing job with a unique key, a deadline, reserved tokens or a draw, or without a serial
    key.
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
    lane: str | None = None
    deadline_at: datetime | None = None
    draw: Draw | None = None
    owner_id: str | None = None
    input_bytes: int = 0
    batch: bool = False
    queue: str | None = None
    first: bool = False

    def __post_init__(self) -> None:
        if self.coalesce and (self.unique_key or self.deadline_at or self.reserved_tokens or self.draw):
            raise ValueError(f"the coalescing job {self.id} has a unique key, a deadline, reserved tokens or a draw")
        if self.coalesce and self.serial_key is None:
            raise ValueError(f"the coalescing job {self.id} has no serial key")

    @property
    def total_bytes(self) -> int:
        """The bytes of its arguments, first events and input, which count for its account until it ends."""
        opening = sum(len(event.data) for event in self.opening)
        return self.input_bytes + opening + len(orjson.dumps(dict(self.arguments), default=str))


@dataclass(frozen=True, slots=True)
class Job:
    """A row of `jobs`."""

    id: str
    account_id: str
    kind: str
    queue: str
    arguments: dict[str, Any]
    state: JobState
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
    sequence: int | None = None
    claim_id: UUID | None = None
    root_id: str | None = None
    depth: int = 0
    join_rule: JoinRule = "all"
    wait_until: datetime | None = None
    deadline_at: datetime | None = None
    lane: str | None = None
    blocked: bool = False
    owner_id: str | None = None
    traceparent: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the job is in a final state."""
        return self.state in ENDED


def lane_of(job: NewJob | Job) -> str:
    """Return the fairness lane of a job."""
    return job.lane or job.account_id


#: How much older than it is a job of a tree can count, so that the ages of queues do not show long waits for a person.
MOST_SENIORITY = "interval '10 minutes'"

#: When a job of a tree counts as due: since its root was created. So a tree is not delayed by what its account has
#: asked for later.
SINCE_ROOT = f"""
(SELECT greatest(root.created_at, now() - {MOST_SENIORITY}) FROM jobs AS root WHERE root.id = {{root_id}})"""

# A job, unless its unique key is taken. `due` is whether the relay may publish it now.
INSERT = f"""
INSERT INTO jobs (id, account_id, kind, queue, priority, arguments, state, run_at, serial_key, unique_key, blocked,
                  parent_id, root_id, depth, deadline_at, lane, reserved_tokens, owner_id, job_bytes, traceparent)
VALUES (%(id)s, %(account_id)s, %(kind)s, %(queue)s, %(priority)s, %(arguments)s,
        CASE WHEN %(run_at)s > now() THEN 'scheduled' ELSE 'queued' END,
        coalesce(%(run_at)s, {SINCE_ROOT.format(root_id="%(root_id)s")}, now()),
        %(serial_key)s, %(unique_key)s,
        EXISTS (SELECT FROM jobs WHERE serial_key = %(serial_key)s
                AND state IN ('scheduled', 'queued', 'running', 'waiting')),
        %(parent_id)s, %(root_id)s, %(depth)s, %(deadline_at)s, %(lane)s, %(reserved_tokens)s,
        %(owner_id)s, %(job_bytes)s, %(traceparent)s)
ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING
RETURNING state = 'queued' AND NOT blocked AS due
"""


def enqueue(connection: Connection, job: NewJob, *, parent: Job | None = None) -> bool:
    """Insert a job in the caller's transaction. Nudge the relay after the commit.

    The caller has locked the serial key of a child, and checked that no job above it has the key.

    Returns False if nothing was inserted: the unique key is taken, or a coalescing job is queued already. In a
    `Database.batch` the result is not known yet, so do not enqueue jobs with a unique key there.
    """
    return bool(_insert(connection, job, parent).rowcount)


@contextmanager
def ignore_duplicate_id() -> Iterator[None]:
    """Ignore the violation when a repeated request inserts a job whose id exists. Wraps the inserting transaction."""
    try:
        yield
    except UniqueViolation as error:
        if error.diag.constraint_name != "jobs_pkey":
            raise


def enqueue_many(connection: Connection, jobs: Sequence[NewJob]) -> Callable[[], bool]:
    """Insert jobs in the caller's transaction or batch. Call the result after the batch: is one of the jobs due now?"""
    inserted = [_insert(connection, job, None) for job in jobs]
    return lambda: any(row["due"] for cursor in inserted if (row := cursor.fetchone()))


def _insert(connection: Connection, job: NewJob, parent: Job | None) -> Cursor[DictRow]:
    _check_as_child(job, parent)
    if job.coalesce:
        connection.execute(coalesced.LOCK_SHARED, {"serial_key": job.serial_key})
    elif job.serial_key is not None and parent is None:
        lock_serial_key(connection, job.serial_key)
    inserted = connection.execute(coalesced.INSERT if job.coalesce else INSERT, insert_parameters(job, parent))
    if inserted.rowcount and job.opening:
        archive(connection, job.id, job.opening)
    return inserted


def _check_as_child(job: NewJob, parent: Job | None) -> None:
    """Raise ValueError for what only a child has or may not have."""
    if parent is None and job.draw is not None:
        raise ValueError(f"the job {job.id} has a draw and no parent")
    if parent is not None and job.coalesce:
        raise ValueError(f"the coalescing job {job.id} has a parent, which could not wait for it")


def insert_parameters(job: NewJob, parent: Job | None = None) -> dict[str, Any]:
    """Return the parameters of `INSERT`."""
    kind = CATALOGUE[job.kind]
    queue = job.queue or kind.queue
    deadlines = [job.deadline_at, parent.deadline_at if parent else None]
    root_id = (parent.root_id or parent.id) if parent else None
    return {
        "id": job.id,
        "account_id": job.account_id,
        "kind": job.kind,
        "queue": batch_queue(queue) if job.batch else queue,
        "priority": kind.priority - job.first,
        "arguments": Jsonb({**job.arguments, **(draw_argument(root_id, job.draw) if root_id and job.draw else {})}),
        "run_at": job.run_at,
        "serial_key": job.serial_key,
        "unique_key": job.unique_key,
        "parent_id": parent.id if parent else None,
        "root_id": root_id,
        "depth": parent.depth + 1 if parent else 0,
        "deadline_at": min((deadline for deadline in deadlines if deadline is not None), default=None),
        "lane": job.lane,
        "owner_id": job.owner_id or (parent.owner_id if parent else None),
        "reserved_tokens": job.reserved_tokens,
        "job_bytes": job.total_bytes,
        "traceparent": current_traceparent(),
    }


COLUMNS = columns(Job, "jobs")

# Jobs of earlier versions name their user in the arguments, and turns in the response.
OWNER = """coalesce(jobs.owner_id, jobs.arguments ->> 'user_id', (
        SELECT coalesce(user_id, '') FROM responses WHERE responses.job_id = jobs.id))"""

ACCESSIBLE = owned("jobs.account_id", OWNER)

SELECT = f"SELECT {columns(Job, 'jobs', omit=('owner_id',))}, {OWNER} AS owner_id FROM jobs"

READ = f"{SELECT} WHERE jobs.id = %(id)s AND {ACCESSIBLE}"

# The columns of the view have the names of the record's fields.
READ_MOVED = READ.replace("FROM jobs ", "FROM all_jobs AS jobs ")


def read(connection: Connection, job_id: str, access: Access) -> Job | None:
    """Return the job if the caller has access to it; also one that ended long ago."""
    parameters = {"id": job_id, **access.parameters}
    row = fetch_one(connection, READ, parameters) or fetch_one(connection, READ_MOVED, parameters)
    return Job(**row) if row else None


LOCK_UNFINISHED = """
SELECT FROM jobs WHERE id = %(id)s AND state IN ('scheduled', 'queued', 'running', 'waiting') FOR SHARE
"""


def lock_unfinished(connection: Connection, job_id: str) -> bool:
    """Return whether a job has not ended. Until the transaction ends it stays so."""
    return fetch_one(connection, LOCK_UNFINISHED, {"id": job_id}) is not None


READ_MANY = f"SELECT {COLUMNS} FROM jobs WHERE id = ANY(%(ids)s) AND account_id = %(account_id)s"


def read_many(connection: Connection, ids: Sequence[str], account_id: str) -> list[Job]:
    """Return those of the jobs that exist, unordered; not those that ended long ago."""
    return [Job(**row) for row in fetch_all(connection, READ_MANY, {"ids": list(ids), "account_id": account_id})]


LIST = f"""
{SELECT.replace("FROM jobs", "FROM all_jobs AS jobs")}
WHERE {ACCESSIBLE}
  AND (%(kind)s::text IS NULL OR kind = %(kind)s)
  AND (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(after)s::text IS NULL OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s
"""


def list_jobs(
    connection: Connection,
    access: Access,
    *,
    kind: str | None = None,
    state: str | None = None,
    after: str | None = None,
    limit: int = 20,
) -> list[Job]:
    """Return at most `limit` jobs that the caller has access to, newest first, older than the job `after`."""
    parameters = {**access.parameters, "kind": kind, "state": state, "after": after, "limit": limit}
    return [Job(**row) for row in fetch_all(connection, LIST, parameters)]


CLEAR_ARGUMENTS = "UPDATE jobs SET arguments = '{}' WHERE id = %(id)s"


def clear_arguments(connection: Connection, job_id: str) -> None:
    """Erase the arguments of a job that ends in the caller's transaction, since operators and members can read them."""
    connection.execute(CLEAR_ARGUMENTS, {"id": job_id})


CHILDREN = f"SELECT {COLUMNS} FROM jobs WHERE parent_id = %(parent_id)s ORDER BY coalesce(sequence, 0), id"


def children(connection: Connection, parent_id: str) -> list[Job]:
    """Return all children of a job in the order of their creation."""
    return [Job(**row) for row in fetch_all(connection, CHILDREN, {"parent_id": parent_id})]

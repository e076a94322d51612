"""Claim a job, keep its lease, and end, retry or release it.

`attempt` is the fencing token. A claim increments it, and every later statement of the attempt names it and changes
nothing once a newer attempt exists. So a worker that was presumed dead and resumes overwrites nothing: its writes raise
Fenced.

A lease expires unless it is renewed. The outbox then gives the job back.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import COLUMNS, Job, JobState, NewJob, enqueue, enqueue_many
from models.journal.archive import archive
from models.journal.events import Event
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import Fenced

#: Seconds that a lease lasts, and seconds between two renewals: three may fail before the job is released.
LEASE = 20.0
RENEWAL = 5.0

#: Longest wait between two attempts, in seconds.
MAX_BACKOFF = 600.0

# Take a due job, or a running one whose message was redelivered: its worker is dead, or is stopped by the fence. Only
# the first redelivery is claimed at once; after a second one GIVE_BACK_REDELIVERED delays the job.
CLAIM = f"""
UPDATE jobs SET
    state = 'running',
    attempt = attempt + 1,
    failures = failures + (state = 'running' AND worker <> %(worker)s)::int,
    crashes = crashes + (state = 'running' AND worker <> %(worker)s)::int,
    message_id = %(message_id)s,
    worker = %(worker)s,
    lease_until = now() + make_interval(secs => %(lease)s),
    published_at = coalesce(published_at, now()),
    started_at = coalesce(started_at, now())
WHERE id = %(id)s
  AND (state = 'queued' AND run_at <= now()
       OR state = 'running' AND message_id = %(message_id)s
          AND CASE WHEN worker = %(worker)s THEN %(unsure)s ELSE failures = 0 END)
RETURNING {COLUMNS}
"""


def claim(
    connection: Connection,
    job_id: str,
    *,
    message_id: str,
    worker: str,
    lease: float = LEASE,
    unsure: bool = False,
) -> Job | None:
    """Start an attempt. Returns None if there is nothing to do for this message: then drop it.

    `unsure` is whether this worker may have claimed the job already without receiving the reply. Needs a connection in
    autocommit.
    """
    parameters = {"id": job_id, "message_id": message_id, "worker": worker, "lease": lease, "unsure": unsure}
    try:
        row = fetch_one(connection, CLAIM, parameters)
    except UniqueViolation:
        # An earlier job with the same serial key is running. Back to the outbox, which publishes this one when it is
        # due.
        connection.execute("UPDATE jobs SET published_at = NULL WHERE id = %(id)s AND state = 'queued'", parameters)
        return None
    if row is None:
        connection.execute(GIVE_BACK_REDELIVERED, parameters)
        return None
    return Job(**row)


# A worker died while running the job. The first time the job runs again at once. From the second time on it is a
# suspect: it is delayed, and the outbox publishes one suspect per queue at a time.
#
# Statements that lock several jobs lock the youngest first, and so children before their parents, like end and cancel.
LOST = "WITH lost AS (SELECT id AS lost_id FROM jobs WHERE state = 'running' AND "
LOCKED = " ORDER BY id DESC FOR NO KEY UPDATE"
GIVE_BACK = """)
UPDATE jobs SET
    state = 'queued',
    failures = failures + 1,
    crashes = crashes + 1,
    run_at = now() + make_interval(
        secs => CASE failures WHEN 0 THEN 0 ELSE 2 ^ least(failures, 8) * (0.25 + random() / 2) END),
    published_at = NULL, message_id = NULL, worker = NULL, lease_until = NULL
FROM lost WHERE id = lost_id
"""

REDELIVERED = "id = %(id)s AND message_id = %(message_id)s AND worker <> %(worker)s"
GIVE_BACK_REDELIVERED = LOST + REDELIVERED + LOCKED + GIVE_BACK
GIVE_BACK_OF_WORKER = LOST + "worker = ANY(%(workers)s)" + LOCKED + GIVE_BACK
# Locked rows are left for the next sweep: a process that is frozen while holding a lock must not block the sweeper.
GIVE_BACK_EXPIRED = LOST + "lease_until < now()" + LOCKED + " SKIP LOCKED" + GIVE_BACK


# Renew the leases of a worker's attempts. A row that is not returned belongs to a newer attempt.
RENEW = """
WITH held AS (
    SELECT id AS held_id FROM jobs
    JOIN unnest(%(ids)s::text[], %(attempts)s::int[]) AS leased (leased_id, leased_attempt)
        ON id = leased_id AND attempt = leased_attempt
    WHERE state = 'running' ORDER BY id DESC FOR NO KEY UPDATE OF jobs
)
UPDATE jobs SET lease_until = now() + make_interval(secs => %(lease)s) FROM held WHERE id = held_id
RETURNING id, cancel_requested_at IS NOT NULL AS cancelled
"""


def renew_leases(connection: Connection, held: Mapping[str, int], *, lease: float = LEASE) -> dict[str, bool]:
    """Renew the leases of `held`, job id → attempt. Returns the current ones: job id → whether it is cancelled."""
    parameters = {"ids": list(held), "attempts": list(held.values()), "lease": lease}
    return {row["id"]: row["cancelled"] for row in fetch_all(connection, RENEW, parameters)}


@dataclass(frozen=True, slots=True)
class Ending:
    """The result of an attempt that ends its job.

    events      last events of the journal; the last one is an ending
    record      writes the job's output and usage in the transaction of the state change
    follow_ups  jobs to insert in the same transaction
    tokens      tokens used, for the account's limit per minute
    error       `{"code", "message"}` for the caller; the traceback is for operators only
    """

    state: JobState
    events: Sequence[Event]
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    traceback: str | None = None
    record: Callable[[Connection], None] | None = None
    follow_ups: Sequence[NewJob] = ()
    tokens: int = 0


END = """
UPDATE jobs SET state = %(state)s, result = %(result)s, error = %(error)s, traceback = %(traceback)s,
                finished_at = now(), lease_until = NULL
WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running'
RETURNING parent_id
"""

# Count one child as ended. The last one puts its parent back into the queue.
WAKE_PARENT = """
UPDATE jobs SET pending_children = pending_children - 1,
                state = CASE pending_children WHEN 1 THEN 'queued' ELSE 'waiting' END,
                run_at = now(), published_at = NULL
WHERE id = %(id)s AND state = 'waiting'
"""

# Whether the end of this job frees a place in the window for another one.
JOB_WAITS = """
SELECT EXISTS (SELECT FROM jobs WHERE state = 'queued' AND published_at IS NULL
               AND account_id = %(account_id)s AND kind = %(kind)s) AS waits
"""


def end(connection: Connection, job: Job, ending: Ending, unarchived: Sequence[Event]) -> bool:
    """End the job in the caller's transaction, with its events, records and follow-up jobs.

    `unarchived` are the journal's events since the last checkpoint, including those of the ending. Returns whether the
    relay should publish now. Raises Fenced if a newer attempt exists.
    """
    ended = connection.execute(END, {"id": job.id, "attempt": job.attempt, **_ending_parameters(ending)})
    waits = connection.execute(JOB_WAITS, {"account_id": job.account_id, "kind": job.kind})
    connection.sync()  # the fence must be checked before anything else is written
    parent_id = _require_row(ended.fetchone(), job)["parent_id"]
    if unarchived:
        archive(connection, job.id, unarchived)
    if ending.record:
        ending.record(connection)
    following = enqueue_many(connection, ending.follow_ups)
    if parent_id:
        connection.execute(WAKE_PARENT, {"id": parent_id})
    other = waits.fetchone()
    return bool(parent_id or following() or (other and other["waits"]))


def _ending_parameters(ending: Ending) -> dict[str, Any]:
    return {
        "state": ending.state,
        "result": Jsonb(ending.result) if ending.result is not None else None,
        "error": Jsonb(ending.error) if ending.error is not None else None,
        "traceback": ending.traceback,
    }


RETRY = """
UPDATE jobs SET state = 'queued', failures = failures + 1, run_at = now() + make_interval(secs => %(delay)s),
                published_at = NULL, message_id = NULL, worker = NULL, lease_until = NULL,
                error = %(error)s, traceback = %(traceback)s
WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running'
RETURNING id
"""


def retry(
    connection: Connection, job: Job, error: Mapping[str, Any], traceback: str, unarchived: Sequence[Event] = ()
) -> None:
    """Put the job back after a failure, to run again after its kind's backoff. Raises Fenced."""
    delay = backoff(job)
    _execute_fenced(connection, job, RETRY, {"delay": delay, "error": Jsonb(error), "traceback": traceback})
    if unarchived:
        archive(connection, job.id, unarchived)


def backoff(job: Job) -> float:
    """Return the seconds to wait after this failure: doubled each time, with a jitter of ±25 %."""
    delay = CATALOGUE[job.kind].backoff * 2**job.failures
    return float(min(delay, MAX_BACKOFF) * random.uniform(0.75, 1.25))


RELEASE = """
UPDATE jobs SET state = 'queued', run_at = now() + make_interval(secs => %(delay)s),
                published_at = NULL, message_id = NULL, worker = NULL, lease_until = NULL
WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running'
RETURNING id
"""


def release(connection: Connection, job: Job, unarchived: Sequence[Event] = (), *, delay: float = 0) -> None:
    """Put the job back without counting a failure: the worker stops, or a server is down. Raises Fenced."""
    _execute_fenced(connection, job, RELEASE, {"delay": delay})
    if unarchived:
        archive(connection, job.id, unarchived)


WAIT = """
UPDATE jobs SET state = CASE %(pending)s WHEN 0 THEN 'queued' ELSE 'waiting' END, pending_children = %(pending)s,
                run_at = now(), published_at = NULL, message_id = NULL, worker = NULL, lease_until = NULL
WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running' AND cancel_requested_at IS NULL
RETURNING id
"""

# Some children existed already: their unique keys were taken.
WAIT_FOR_FEWER = """
UPDATE jobs SET pending_children = %(pending)s, state = CASE %(pending)s WHEN 0 THEN 'queued' ELSE 'waiting' END
WHERE id = %(id)s
"""


def wait_for_children(
    connection: Connection, job: Job, jobs: Sequence[NewJob], unarchived: Sequence[Event] = ()
) -> None:
    """Enqueue children and let the job wait for them without a thread. The next attempt starts when the last child has
    ended.

    A child whose unique key is taken is not waited for. Raises Fenced, also if the job was cancelled before.
    """
    _execute_fenced(connection, job, WAIT, {"pending": len(jobs)})
    pending = [child for child in jobs if enqueue(connection, child, parent_id=job.id)]
    if len(pending) < len(jobs):
        connection.execute(WAIT_FOR_FEWER, {"id": job.id, "pending": len(pending)})
    if unarchived:
        archive(connection, job.id, unarchived)


LOCK = "SELECT id FROM jobs WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running' FOR NO KEY UPDATE"


def lock_job(connection: Connection, job: Job) -> None:
    """Lock the job's row, so that no other attempt starts before the transaction ends. Raises Fenced."""
    _execute_fenced(connection, job, LOCK, {})


def checkpoint(connection: Connection, job: Job, unarchived: Sequence[Event]) -> None:
    """Archive the journal's new events. Raises Fenced."""
    lock_job(connection, job)
    archive(connection, job.id, unarchived)


PROGRESS = """
UPDATE jobs SET progress = %(progress)s WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running' RETURNING id
"""


def store_progress(connection: Connection, job: Job, progress: Mapping[str, Any]) -> None:
    """Store the job's progress. Raises Fenced."""
    _execute_fenced(connection, job, PROGRESS, {"progress": Jsonb(progress)})


REWIND = """
UPDATE jobs SET rewound_at = least(rewound_at, %(sequence)s)
WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running' RETURNING id
"""


def store_rewind(connection: Connection, job: Job, sequence: int) -> None:
    """Store the sequence number from which on events may have been lost. Raises Fenced."""
    _execute_fenced(connection, job, REWIND, {"sequence": sequence})


def is_current(connection: Connection, job_id: str, attempt: int) -> bool:
    """Return whether the attempt is the one that runs."""
    return fetch_one(connection, "SELECT FROM jobs WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running'",
               {"id": job_id, "attempt": attempt}) is not None  # fmt: skip


MAY_WRITE = """
SELECT FROM jobs WHERE id = %(id)s AND attempt = %(attempt)s AND (state = 'running' OR finished_at IS NOT NULL)
"""


def may_write(connection: Connection, job_id: str, attempt: int) -> bool:
    """Return whether the attempt may write the journal: it is running, or it ended the job."""
    return fetch_one(connection, MAY_WRITE, {"id": job_id, "attempt": attempt}) is not None


def has_ended(connection: Connection, job: Job) -> bool:
    """Return whether this attempt ended the job, after a commit that was not confirmed."""
    row = fetch_one(connection, "SELECT attempt, finished_at FROM jobs WHERE id = %(id)s", {"id": job.id})
    return row is not None and row["attempt"] == job.attempt and row["finished_at"] is not None


def _execute_fenced(connection: Connection, job: Job, statement: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return _require_row(fetch_one(connection, statement, {"id": job.id, "attempt": job.attempt, **parameters}), job)


def _require_row(row: dict[str, Any] | None, job: Job) -> dict[str, Any]:
    if row is None:
        raise Fenced(f"Attempt {job.attempt} of {job.id} has been superseded.")
    return row

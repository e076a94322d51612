"""Attempts: how a worker takes a job, keeps it, and lets it go.

`attempt` is the fencing token. A claim raises it; every later statement names it and touches nothing once a later
attempt exists. So a worker that was thought dead and wakes up can do no harm: its writes are refused with Fenced.

A lease says that the attempt lives. It ends when nobody renews it; the outbox then gives the job back.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import Job, NewJob, State, enqueue, enqueue_many
from models.journal.archive import archive
from models.journal.events import Event
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import Fenced

#: Seconds that a lease lasts, and between two renewals: three may fail before a job is taken for lost.
LEASE = 20.0
RENEWAL = 5.0

#: The longest wait between two attempts, in seconds.
LONGEST_BACKOFF = 600.0

# Take a due job, or the running one whose very delivery came again: its consumer is gone, or is a zombie that the
# fence stops. Only the first death is followed at once; after a second one `give_back_redelivered` makes it wait.
CLAIM = """
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
RETURNING *
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
    """Start an attempt, or return None where there is nothing to do for this delivery: drop it then.

    `unsure` says that this worker may have claimed it already, and not heard so. For a connection in autocommit.
    """
    parameters = {"id": job_id, "message_id": message_id, "worker": worker, "lease": lease, "unsure": unsure}
    try:
        row = fetch_one(connection, CLAIM, parameters)
    except UniqueViolation:
        # An earlier job of the same serial key still runs: back to the outbox, which knows when it is this one's turn.
        connection.execute("UPDATE jobs SET published_at = NULL WHERE id = %(id)s AND state = 'queued'", parameters)
        return None
    if row is None:
        connection.execute(GIVE_BACK_REDELIVERED, parameters)
        return None
    return Job(**row)


# A worker died under the job. After the first time it runs again at once; after that it is under suspicion: it waits a
# while, and the outbox lets only one such job of a queue run at a time.
#
# Whatever locks several jobs locks the youngest first, and so children before their parents, as ends and cancels do.
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
# What somebody holds is left for the next sweep: a process that is frozen with a lock must not stop the sweeper.
GIVE_BACK_EXPIRED = LOST + "lease_until < now()" + LOCKED + " SKIP LOCKED" + GIVE_BACK


# Renew the leases of a worker's attempts; what does not come back is no longer its own.
RENEW = """
WITH held AS (
    SELECT id AS held_id FROM jobs
    JOIN unnest(%(ids)s::text[], %(attempts)s::int[]) AS given (given_id, given_attempt)
        ON id = given_id AND attempt = given_attempt
    WHERE state = 'running' ORDER BY id DESC FOR NO KEY UPDATE OF jobs
)
UPDATE jobs SET lease_until = now() + make_interval(secs => %(lease)s) FROM held WHERE id = held_id
RETURNING id, cancel_requested_at IS NOT NULL AS cancelled
"""


def renew_leases(connection: Connection, held: Mapping[str, int], *, lease: float = LEASE) -> dict[str, bool]:
    """Renew the leases of `held`, job id → attempt. Returns job id → cancel requested, for those still ours."""
    parameters = {"ids": list(held), "attempts": list(held.values()), "lease": lease}
    return {row["id"]: row["cancelled"] for row in fetch_all(connection, RENEW, parameters)}


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ends its job.

    events      what its journal ends with; the last one `ends`
    record      writes what belongs to the job (output, usage), in the transaction of the state change
    follow_ups  jobs that begin when this one has ended, in the same transaction
    tokens      what it has used, for the account's tokens a minute
    error       `{"code", "message"}`, fit for the caller; the traceback is for operators only
    """

    state: State
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

# One child less to wait for; the last one puts its parent back to work.
WAKE_PARENT = """
UPDATE jobs SET pending_children = pending_children - 1,
                state = CASE pending_children WHEN 1 THEN 'queued' ELSE 'waiting' END,
                run_at = now(), published_at = NULL
WHERE id = %(id)s AND state = 'waiting'
"""

# Whether this end makes room for a job that waits in the table.
SOMEBODY_WAITS = """
SELECT EXISTS (SELECT FROM jobs WHERE state = 'queued' AND published_at IS NULL
               AND account_id = %(account_id)s AND kind = %(kind)s) AS waits
"""


def end(connection: Connection, job: Job, ending: Ending, unarchived: Sequence[Event]) -> bool:
    """End the job, with all that belongs to it, in the caller's transaction.

    `unarchived` are the journal's events since the last checkpoint, those of the ending included. Returns whether the
    relay has something to publish now. Raises Fenced when the attempt is no longer the present one.
    """
    ended = connection.execute(END, {"id": job.id, "attempt": job.attempt, **_ending_parameters(ending)})
    waits = connection.execute(SOMEBODY_WAITS, {"account_id": job.account_id, "kind": job.kind})
    connection.sync()  # the fence's answer must be known before anything else is written
    parent_id = _or_fenced(ended.fetchone(), job)["parent_id"]
    if unarchived:
        archive(connection, job.id, unarchived)
    if ending.record:
        ending.record(connection)
    following = enqueue_many(connection, ending.follow_ups)
    if parent_id:
        connection.execute(WAKE_PARENT, {"id": parent_id})
    somebody = waits.fetchone()
    return bool(parent_id or following() or (somebody and somebody["waits"]))


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
    _fenced(connection, job, RETRY, {"delay": delay, "error": Jsonb(error), "traceback": traceback})
    if unarchived:
        archive(connection, job.id, unarchived)


def backoff(job: Job) -> float:
    """Seconds to wait after this failure: doubled each time, and scattered by a quarter."""
    delay = CATALOGUE[job.kind].backoff * 2**job.failures
    return float(min(delay, LONGEST_BACKOFF) * random.uniform(0.75, 1.25))


RELEASE = """
UPDATE jobs SET state = 'queued', run_at = now() + make_interval(secs => %(delay)s),
                published_at = NULL, message_id = NULL, worker = NULL, lease_until = NULL
WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running'
RETURNING id
"""


def release(connection: Connection, job: Job, unarchived: Sequence[Event] = (), *, delay: float = 0) -> None:
    """Put the job back without counting a failure: the worker leaves, or a part it needs is down. Raises Fenced."""
    _fenced(connection, job, RELEASE, {"delay": delay})
    if unarchived:
        archive(connection, job.id, unarchived)


WAIT = """
UPDATE jobs SET state = CASE %(pending)s WHEN 0 THEN 'queued' ELSE 'waiting' END, pending_children = %(pending)s,
                run_at = now(), published_at = NULL, message_id = NULL, worker = NULL, lease_until = NULL
WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running' AND cancel_requested_at IS NULL
RETURNING id
"""

# Some children had been there before: their unique keys were taken.
WAIT_FOR_FEWER = """
UPDATE jobs SET pending_children = %(pending)s, state = CASE %(pending)s WHEN 0 THEN 'queued' ELSE 'waiting' END
WHERE id = %(id)s
"""


def wait_for_children(
    connection: Connection, job: Job, jobs: Sequence[NewJob], unarchived: Sequence[Event] = ()
) -> None:
    """Enqueue children and wait for them, holding no thread; a new attempt begins when the last one has ended.

    A child whose unique key is taken is not waited for. Raises Fenced, also when a cancel came first.
    """
    _fenced(connection, job, WAIT, {"pending": len(jobs)})
    pending = [child for child in jobs if enqueue(connection, child, parent_id=job.id)]
    if len(pending) < len(jobs):
        connection.execute(WAIT_FOR_FEWER, {"id": job.id, "pending": len(pending)})
    if unarchived:
        archive(connection, job.id, unarchived)


HOLD = "SELECT id FROM jobs WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running' FOR NO KEY UPDATE"


def lock_job(connection: Connection, job: Job) -> None:
    """Let no other attempt begin until the caller's transaction ends. Raises Fenced."""
    _fenced(connection, job, HOLD, {})


def checkpoint(connection: Connection, job: Job, unarchived: Sequence[Event]) -> None:
    """Archive what the journal has so far. Raises Fenced."""
    lock_job(connection, job)
    archive(connection, job.id, unarchived)


PROGRESS = """
UPDATE jobs SET progress = %(progress)s WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running' RETURNING id
"""


def store_progress(connection: Connection, job: Job, progress: Mapping[str, Any]) -> None:
    """Store how far the job has come. Raises Fenced."""
    _fenced(connection, job, PROGRESS, {"progress": Jsonb(progress)})


REWIND = """
UPDATE jobs SET rewound_at = least(rewound_at, %(sequence)s)
WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running' RETURNING id
"""


def store_rewind(connection: Connection, job: Job, sequence: int) -> None:
    """Store from which sequence number on followers may have heard what is lost. Raises Fenced."""
    _fenced(connection, job, REWIND, {"sequence": sequence})


def is_current(connection: Connection, job_id: str, attempt: int) -> bool:
    """Whether the attempt is still the one that runs."""
    return fetch_one(connection, "SELECT FROM jobs WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running'",
               {"id": job_id, "attempt": attempt}) is not None  # fmt: skip


MAY_WRITE = """
SELECT FROM jobs WHERE id = %(id)s AND attempt = %(attempt)s AND (state = 'running' OR finished_at IS NOT NULL)
"""


def may_write(connection: Connection, job_id: str, attempt: int) -> bool:
    """Whether the journal is the attempt's to write: it runs, or it is the one that ended the job."""
    return fetch_one(connection, MAY_WRITE, {"id": job_id, "attempt": attempt}) is not None


def has_ended(connection: Connection, job: Job) -> bool:
    """Whether this very attempt has ended the job: for those who did not hear their commit confirmed."""
    row = fetch_one(connection, "SELECT attempt, finished_at FROM jobs WHERE id = %(id)s", {"id": job.id})
    return row is not None and row["attempt"] == job.attempt and row["finished_at"] is not None


def _fenced(connection: Connection, job: Job, statement: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return _or_fenced(fetch_one(connection, statement, {"id": job.id, "attempt": job.attempt, **parameters}), job)


def _or_fenced(row: dict[str, Any] | None, job: Job) -> dict[str, Any]:
    if row is None:
        raise Fenced(f"attempt {job.attempt} of {job.id} is over")
    return row

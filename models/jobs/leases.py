"""Leases: which workers are alive, and what becomes of the jobs of those that are not.

A lease belongs to the worker, not to its jobs: `workers.seen_at`, renewed by the heartbeat, which also compares the
jobs that the worker holds with their rows. The sweeper gives back the jobs of a worker whose lease has expired. A
message that is delivered again proves nothing about the worker that claimed it: a lost connection is enough for that.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from uuid import UUID

from models.jobs.attempt_spans import record_killed
from models.jobs.fence import RUNNING, fence
from models.jobs.jobs import Job
from models.platform.database import Connection, fetch_all

#: Seconds that a worker's lease lasts, and seconds between two renewals.
LEASE = 15.0
RENEWAL = 3.0

# A worker died while running the job. The first time the job runs again at once. From the second time on it is a
# suspect: it is delayed, and the outbox publishes one suspect per queue at a time.
#
# Statements that lock several jobs lock the youngest first, and so children before their parents, like end and cancel.
# An attempt began when it was claimed; of a second one the row has the time at which it was published.
LOST = "WITH lost AS (SELECT id AS lost_id, published_at AS lost_published_at FROM jobs WHERE state = 'running' AND "
LOCKED = " ORDER BY id DESC FOR NO KEY UPDATE"
GIVE_BACK = """)
UPDATE jobs SET
    state = CASE WHEN failures = 0 OR cancel_requested_at IS NOT NULL THEN 'queued' ELSE 'scheduled' END,
    failures = failures + 1,
    crashes = crashes + 1,
    run_at = now() + make_interval(
        secs => CASE WHEN failures = 0 OR cancel_requested_at IS NOT NULL THEN 0
                     ELSE 2 ^ least(failures, 8) * (0.25 + random() / 2) END),
    published_at = NULL, message_id = NULL, worker = NULL, lease_until = NULL
FROM lost WHERE id = lost_id
RETURNING coalesce(lane, account_id) AS lane, id, kind, queue, attempt, traceparent,
          CASE WHEN attempt = 1 THEN started_at ELSE lost_published_at END AS began_at
"""

GIVE_BACK_OF_WORKER = LOST + "worker = ANY(%(workers)s)" + LOCKED + GIVE_BACK

# Of workers whose lease has expired. Locked rows are left for the next sweep: a process that is frozen while holding a
# lock must not block the sweeper.
SILENT = """(worker IS NULL OR EXISTS (
    SELECT FROM workers WHERE workers.name = jobs.worker AND seen_at <= now() - make_interval(secs => %(lease)s)))"""
GIVE_BACK_OF_SILENT = LOST + SILENT + LOCKED + " SKIP LOCKED" + GIVE_BACK

# A failover may have lost that a worker registered: if it lives, it does so again
# within a lease.
REGISTER_UNKNOWN = """
INSERT INTO workers (name, host, pid, pools, queues, threads, queue_threads)
SELECT DISTINCT worker, '', 0, '{}'::text[], '{}'::text[], 0, '{}'::jsonb FROM jobs
WHERE state = 'running' AND worker IS NOT NULL AND NOT EXISTS (SELECT FROM workers WHERE name = jobs.worker)
ON CONFLICT (name) DO NOTHING
"""


def give_back_of_silent(connection: Connection, *, lease: float = LEASE) -> int:
    """Give back the jobs of workers whose lease has expired, as crashed. Returns how many.

    A worker that is not registered gets a lease from now on.
    """
    connection.execute(REGISTER_UNKNOWN)
    rows = fetch_all(connection, GIVE_BACK_OF_SILENT, {"lease": lease})
    record_killed(rows)
    return len(rows)


@dataclass(frozen=True, slots=True)
class HeldClaims:
    """The state of a worker's claims.

    current   job id → whether the job is cancelled, for each claim that is still the latest one
    unknown   job id → (attempt, claim_id) of jobs that this worker runs by their row, but does not know of
    """

    current: dict[str, bool]
    unknown: dict[str, tuple[int, UUID]]


CURRENT = """
SELECT id, cancel_requested_at IS NOT NULL AS cancelled FROM jobs
JOIN unnest(%(ids)s::text[], %(attempts)s::int[], %(claims)s::uuid[]) AS held (held_id, held_attempt, held_claim)
    ON id = held_id AND attempt = held_attempt AND claim_id = held_claim
WHERE state = 'running'
"""

UNKNOWN = """
SELECT id, attempt, claim_id FROM jobs
WHERE worker = %(worker)s AND state = 'running' AND claim_id IS NOT NULL AND id <> ALL(%(ids)s)
"""


def check_claims(connection: Connection, worker: str, held: Mapping[str, Job]) -> HeldClaims:
    """Compare the jobs that a worker holds, by id, with their rows."""
    parameters = {
        "worker": worker,
        "ids": list(held),
        "attempts": [job.attempt for job in held.values()],
        "claims": [job.claim_id for job in held.values()],
    }
    current = fetch_all(connection, CURRENT, parameters) if held else []
    unknown = fetch_all(connection, UNKNOWN, parameters)
    return HeldClaims(
        {row["id"]: row["cancelled"] for row in current},
        {row["id"]: (row["attempt"], row["claim_id"]) for row in unknown},
    )


# A job whose row lacks a claim that its worker holds: Postgres crashed before that was on the disk, or a failover lost
# it. Its message has been received, so it needs another one.
RESEND_FORGOTTEN = """
UPDATE jobs SET published_at = NULL
FROM unnest(%(ids)s::text[], %(attempts)s::int[]) AS held (held_id, held_attempt)
WHERE id = held_id AND attempt < held_attempt AND state = 'queued' AND published_at IS NOT NULL
"""


def resend_forgotten(connection: Connection, superseded: Collection[Job]) -> int:
    """Publish those of the jobs again whose claims, which are not the latest ones, are lost. Returns how many."""
    if not superseded:
        return 0
    parameters = {"ids": [job.id for job in superseded], "attempts": [job.attempt for job in superseded]}
    return connection.execute(RESEND_FORGOTTEN, parameters).rowcount


# Put back a claim that its worker does not know of: the reply to it, or the commit of its end, was lost.
RELEASE_UNKNOWN = f"""
UPDATE jobs SET state = 'queued', run_at = now(), published_at = NULL, message_id = NULL, worker = NULL
WHERE {RUNNING}
"""


def release_unknown(connection: Connection, job_id: str, attempt: int, claim_id: UUID) -> None:
    """Put a job back that its worker does not run, without counting a failure. Does nothing after another claim."""
    connection.execute(RELEASE_UNKNOWN, {"id": job_id, "attempt": attempt, "claim_id": claim_id})


RELEASE_OF_STOPPING = (
    LOST
    + "worker = %(worker)s"
    + LOCKED
    + """)
UPDATE jobs SET state = 'queued', run_at = now(), published_at = NULL, message_id = NULL, worker = NULL
FROM lost WHERE id = lost_id
"""
)


def release_of_stopping(connection: Connection, worker: str) -> int:
    """Put back what a stopping worker still runs by the jobs' rows, without counting a crash. Returns how many.

    It has ended or released all that it knew of. A failover may have lost that.
    """
    return connection.execute(RELEASE_OF_STOPPING, {"worker": worker}).rowcount


# The thread may be stuck for good: another attempt starts, and this one is fenced.
ABANDON = f"""
UPDATE jobs SET state = 'queued', failures = failures + 1, run_at = now(),
                published_at = NULL, message_id = NULL, worker = NULL
WHERE {RUNNING}
"""


def abandon(connection: Connection, job: Job) -> None:
    """Count an attempt that does not stop after its time limit as a failure. Does nothing after another claim."""
    connection.execute(ABANDON, fence(job))

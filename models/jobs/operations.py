"""The operator's view: what each pool does, and the dead letters."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.jobs.catalogue import POOLS
from models.jobs.jobs import Job
from models.jobs.workers import list_live
from models.journal.archive import archive, last_archived
from models.journal.events import event
from models.platform.database import Connection, fetch_all, fetch_one


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool now. `oldest` is how many seconds the job that is due for the longest has waited for a worker."""

    pool: str
    workers: int
    threads: int
    queued: int
    running: int
    waiting: int
    dead: int
    oldest: float


BY_QUEUE = """
SELECT queue,
       count(*) FILTER (WHERE state = 'queued')::int AS queued,
       count(*) FILTER (WHERE state = 'running')::int AS running,
       count(*) FILTER (WHERE state = 'waiting')::int AS waiting,
       count(*) FILTER (WHERE state = 'dead')::int AS dead,
       coalesce(extract(epoch FROM now() - min(run_at) FILTER (WHERE state = 'queued' AND run_at <= now())), 0)::float
           AS oldest
FROM jobs WHERE state IN ('queued', 'running', 'waiting', 'dead') GROUP BY queue
"""


def pool_states(connection: Connection) -> list[PoolState]:
    """Every pool, also those in which nothing happens."""
    queues = {row["queue"]: row for row in fetch_all(connection, BY_QUEUE)}
    workers = list_live(connection)
    states = []
    for pool, served in POOLS.items():
        rows = [queues[queue] for queue in served if queue in queues]
        serving = [worker for worker in workers if pool in worker.pools]
        counts = {name: sum(row[name] for row in rows) for name in ("queued", "running", "waiting", "dead")}
        oldest = max((row["oldest"] for row in rows), default=0.0)
        states.append(PoolState(pool, len(serving), sum(worker.threads for worker in serving), **counts, oldest=oldest))
    return states


DEAD = """
SELECT * FROM jobs
WHERE state = 'dead'
  AND (%(after)s::text IS NULL
       OR (finished_at, id) < (SELECT finished_at, id FROM jobs WHERE id = %(after)s))
ORDER BY finished_at DESC, id DESC LIMIT %(limit)s
"""


def dead_jobs(connection: Connection, limit: int = 50, *, after: str | None = None) -> list[Job]:
    """The dead, of all accounts, the latest first; those that died before the job `after`."""
    return [Job(**row) for row in fetch_all(connection, DEAD, {"limit": limit, "after": after})]


def any_job(connection: Connection, job_id: str) -> Job | None:
    """A job of whatever account: for operators only."""
    row = fetch_one(connection, "SELECT * FROM jobs WHERE id = %(id)s", {"id": job_id})
    return Job(**row) if row else None


# A child's parent has long gone on without it: it is the parent that can be replayed.
REPLAY = """
UPDATE jobs SET state = 'queued', failures = 0, crashes = 0, run_at = now(), published_at = NULL, finished_at = NULL,
                message_id = NULL, worker = NULL, cancel_requested_at = NULL,
                error = NULL, traceback = NULL, result = NULL
WHERE id = %(id)s AND state = 'dead' AND parent_id IS NULL
RETURNING id
"""


def replay(connection: Connection, job_ids: Sequence[str]) -> list[str]:
    """Give dead jobs a new life, in the caller's transaction. Returns those that were dead and nobody's children.

    Their journals go on where they ended, with an event that says so.
    """
    return [job_id for job_id in job_ids if _replay(connection, job_id)]


def _replay(connection: Connection, job_id: str) -> bool:
    if fetch_one(connection, REPLAY, {"id": job_id}) is None:
        return False
    replayed = event(last_archived(connection, job_id) + 1, "sangha:job.replayed", {"job_id": job_id})
    archive(connection, job_id, [replayed])
    return True


DISCARD = "UPDATE jobs SET state = 'failed' WHERE id = ANY(%(ids)s) AND state = 'dead' RETURNING id"


def discard(connection: Connection, job_ids: Sequence[str]) -> list[str]:
    """Let dead jobs rest: they stay failed for their owners, and leave the operator's list."""
    return [row["id"] for row in fetch_all(connection, DISCARD, {"ids": list(job_ids)})]

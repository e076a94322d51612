"""Dead jobs: list, replay and discard them. For operators: not scoped by account."""

from collections.abc import Sequence

from models.jobs.jobs import COLUMNS, Job
from models.jobs.replayable import REPLAYABLE
from models.jobs.serial_keys import LAST_OF_SERIAL_KEY, lock_serial_key_of
from models.journal.archive import archive, last_archived
from models.journal.events import event
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns

DEAD = f"""
SELECT {COLUMNS} FROM jobs
WHERE state = 'dead'
  AND (%(after)s::text IS NULL
       OR (finished_at, id) < (SELECT finished_at, id FROM jobs WHERE id = %(after)s))
ORDER BY finished_at DESC, id DESC LIMIT %(limit)s
"""


def list_dead_jobs(connection: Connection, limit: int = 50, *, after: str | None = None) -> list[Job]:
    """Return at most `limit` dead jobs of all accounts, the latest first, that died before the job `after`."""
    return [Job(**row) for row in fetch_all(connection, DEAD, {"limit": limit, "after": after})]


def read_any(connection: Connection, job_id: str) -> Job | None:
    """Return a job of any account and age. For operators only."""
    row = fetch_one(connection, f"SELECT {columns(Job)} FROM all_jobs WHERE id = %(id)s", {"id": job_id})
    return Job(**row) if row else None


# Not a child: its parent has continued without it. Replay the parent instead.
REPLAY = f"""
UPDATE jobs SET state = 'queued', failures = 0, crashes = 0, run_at = now(), published_at = NULL, finished_at = NULL,
                message_id = NULL, worker = NULL, cancel_requested_at = NULL, deadline_at = NULL,
                error = NULL, traceback = NULL, result = NULL, {LAST_OF_SERIAL_KEY}
WHERE id = %(id)s AND parent_id IS NULL AND {REPLAYABLE}
RETURNING id
"""


def can_be_replayed(job: Job) -> bool:
    """Return whether `replay` would queue the job."""
    effect_unknown = job.state == "failed" and (job.error or {}).get("code") == "effect_unknown"
    return job.parent_id is None and (job.state == "dead" or effect_unknown)


def replay(connection: Connection, job_ids: Sequence[str]) -> list[str]:
    """Queue dead jobs again in the caller's transaction, and those that failed because an effect is unknown.

    Returns the ids of those that were queued: children are not, since their parents have continued without them.
    Their journals continue with the event `sangha:job.replayed`.
    """
    return [job_id for job_id in job_ids if _replay(connection, job_id)]


def _replay(connection: Connection, job_id: str) -> bool:
    lock_serial_key_of(connection, job_id)
    if fetch_one(connection, REPLAY, {"id": job_id}) is None:
        return False
    replayed = event(last_archived(connection, job_id) + 1, "sangha:job.replayed", {"job_id": job_id})
    archive(connection, job_id, [replayed])
    return True


DISCARD = "UPDATE jobs SET state = 'failed' WHERE id = ANY(%(ids)s) AND state = 'dead' RETURNING id"


def discard(connection: Connection, job_ids: Sequence[str]) -> list[str]:
    """Mark dead jobs as failed, so that they are no longer listed as dead. Returns the ids of those that were dead."""
    return [row["id"] for row in fetch_all(connection, DISCARD, {"ids": list(job_ids)})]

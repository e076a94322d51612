"""Ended jobs in a table of their own.

`jobs` has the jobs that are unfinished or ended within the last days; `ended_jobs` those that ended before, with their
events as one compressed value each. The view `all_jobs` has both, with the columns of the record `Job`.

A tree of jobs moves as a whole, in one transaction, and never back. So a statement on `all_jobs` finds a job exactly
once, and one on `jobs` followed by one on `ended_jobs` misses no job: a reader that usually needs a recent job does
that, since it is cheaper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from models.jobs.replayable import REPLAYABLE
from models.jobs.unclaimed_results import KIND_LIST
from models.journal.archive import Chunk, PackedEvents, pack
from models.platform.database import Connection, fetch_all

#: Days after their end for which the platform's own jobs are kept, for operators.
PLATFORM_JOB_DAYS = 7

#: Days after their end for which jobs of accounts are kept, except turns, which are kept until their owner deletes
#: them. Their results are stored elsewhere.
ACCOUNT_JOB_DAYS = 30

#: Seconds after its end for which a tree stays in `jobs`: there its ids and unique keys prevent a second insertion. It
#: is longer than a key of a request is kept (`models/access/idempotency.py`).
MOVED_AFTER = 2 * 86_400.0

# The roots of trees, in the order of their ends; the first conditions are those of the index `jobs_movable`. The
# sweeper deletes turns that are not stored, and results that nobody fetched. A turn that is still to be remembered is
# found in `jobs`. An operator may replay a job that failed because of an effect.
LOCK_ROOTS = f"""
SELECT id, finished_at FROM jobs
WHERE parent_id IS NULL AND state IN ('completed', 'failed', 'cancelled')
  AND kind NOT IN ({KIND_LIST})
  AND finished_at < now() - make_interval(secs => %(age)s) AND (finished_at, id) > (%(after_time)s, %(after_id)s)
ORDER BY finished_at, id LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""

# What is held back: unfinished and dead jobs, those with an unresolved effect, and meditations without an outcome,
# which show the state of their job. OFFSET 0 keeps the planner from reading all of `jobs` for trees that it expects to
# be larger than they are.
TREES = f"""
WITH RECURSIVE tree AS (
    SELECT id AS root, id AS job_id FROM unnest(%(roots)s::text[]) AS id
    UNION ALL
    SELECT tree.root, child.id FROM tree
    CROSS JOIN LATERAL (SELECT id FROM jobs WHERE parent_id = tree.job_id OFFSET 0) AS child
)
SELECT root, array_agg(job_id) AS ids FROM tree CROSS JOIN LATERAL (
    SELECT state NOT IN ('completed', 'failed', 'cancelled')
           OR {REPLAYABLE}
           OR EXISTS (SELECT FROM effects WHERE effects.job_id = jobs.id AND effects.state IN ('intent', 'unknown'))
           OR EXISTS (SELECT FROM meditations WHERE meditations.job_id = jobs.id AND outcome IS NULL)
           OR EXISTS (SELECT FROM responses WHERE responses.job_id = jobs.id
                      AND (expires_at IS NOT NULL OR unremembered AND user_id IS NOT NULL)) AS held
    FROM jobs WHERE jobs.id = tree.job_id OFFSET 0) AS job
GROUP BY root HAVING NOT bool_or(held)
"""

LOCK_DESCENDANTS = "SELECT id FROM jobs WHERE id = ANY(%(ids)s) FOR UPDATE SKIP LOCKED"

CHUNKS = """
SELECT job_id, first_sequence, last_sequence, tokens, events FROM job_events WHERE job_id = ANY(%(ids)s)
ORDER BY job_id, first_sequence
"""

#: The columns that are copied as they are.
COPIED = """
id, account_id, kind, queue, arguments, state, run_at, parent_id, root_id, depth, sequence, attempt, failures, crashes,
cancel_requested_at, rewound_at, progress, result, error, traceback, created_at, started_at, finished_at,
owner_id"""

# A job without events has no row in `packed`. One whose time is over already goes to the partition of the present week.
INSERT = f"""
INSERT INTO ended_jobs ({COPIED}, delete_after, events, last_sequence, tokens)
SELECT {COPIED},
       CASE WHEN kind = 'turn.run' THEN 'infinity'
            ELSE greatest(now(), finished_at + make_interval(days => CASE account_id WHEN 'platform'
                                                             THEN %(platform_days)s ELSE %(account_days)s END)) END,
       packed.events, coalesce(packed.last_sequence, -1), coalesce(packed.tokens, 0)
FROM jobs LEFT JOIN unnest(%(packed_ids)s::text[], %(events)s::bytea[], %(last)s::int[], %(tokens)s::int[])
    AS packed (packed_id, events, last_sequence, tokens) ON packed_id = id
WHERE id = ANY(%(ids)s)
"""

# Their events and budgets are deleted by cascade.
DELETE_MOVED = "DELETE FROM jobs WHERE id = ANY(%(ids)s)"


@dataclass(frozen=True, slots=True)
class Cursor:
    """The position of a root among all ended ones. Trees that are held back are passed over."""

    finished_at: datetime = datetime(1, 1, 1, tzinfo=UTC)
    id: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """The number of jobs that were moved, and where the next batch begins; None: there is none."""

    moved: int
    next: Cursor | None


def move_batch(connection: Connection, limit: int, *, age: float = MOVED_AFTER, after: Cursor | None = None) -> Batch:
    """Move at most `limit` trees whose root ended `age` seconds ago, in the caller's transaction.

    Needs the partitions that `ended_partitions.create_missing` creates.
    """
    after = after or Cursor()
    parameters = {"limit": limit, "age": age, "after_time": after.finished_at, "after_id": after.id}
    roots = fetch_all(connection, LOCK_ROOTS, parameters)
    if not roots:
        return Batch(0, None)
    ids = _locked_trees(connection, [row["id"] for row in roots])
    moved = _move(connection, ids, _pack(connection, ids)) if ids else 0
    return Batch(moved, Cursor(roots[-1]["finished_at"], roots[-1]["id"]))


def _locked_trees(connection: Connection, roots: Sequence[str]) -> list[str]:
    """Return the jobs of the complete trees that may be moved, and lock them until the transaction ends."""
    trees = [row["ids"] for row in fetch_all(connection, TREES, {"roots": roots})]
    descendants = [job_id for ids in trees for job_id in ids if job_id not in roots]
    if descendants:
        rows = fetch_all(connection, LOCK_DESCENDANTS, {"ids": descendants})
        locked = {row["id"] for row in rows} | set(roots)
        trees = [ids for ids in trees if locked.issuperset(ids)]
    return [job_id for ids in trees for job_id in ids]


def _pack(connection: Connection, ids: Sequence[str]) -> dict[str, PackedEvents]:
    chunks: dict[str, list[Chunk]] = {}
    for row in fetch_all(connection, CHUNKS, {"ids": ids}):
        chunks.setdefault(row.pop("job_id"), []).append(Chunk(**row))
    return {job_id: pack(of_job) for job_id, of_job in chunks.items()}


def _move(connection: Connection, ids: Sequence[str], packed: Mapping[str, PackedEvents]) -> int:
    parameters: dict[str, Any] = {
        "ids": ids,
        "packed_ids": list(packed),
        "events": [events.data for events in packed.values()],
        "last": [events.last_sequence for events in packed.values()],
        "tokens": [events.tokens for events in packed.values()],
        "platform_days": PLATFORM_JOB_DAYS,
        "account_days": ACCOUNT_JOB_DAYS,
    }
    connection.execute(INSERT, parameters)
    return connection.execute(DELETE_MOVED, {"ids": ids}).rowcount


# A tree is deleted as by the foreign key of `jobs`. A turn's response is deleted by a trigger.
DELETE = """
WITH RECURSIVE tree AS (
    SELECT id FROM ended_jobs WHERE id = %(id)s AND account_id = %(account_id)s
    UNION ALL
    SELECT ended_jobs.id FROM ended_jobs JOIN tree ON ended_jobs.parent_id = tree.id
)
DELETE FROM ended_jobs WHERE id IN (SELECT id FROM tree)
"""


def delete(connection: Connection, job_id: str, account_id: str) -> bool:
    """Delete a moved job of the account with its events and descendants. Returns whether it was deleted.

    Call it after a statement that has not found the job in `jobs`.
    """
    return connection.execute(DELETE, {"id": job_id, "account_id": account_id}).rowcount > 0

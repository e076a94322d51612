"""Children of a job: insert or adopt them, wait for them, and wake their parent."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

from models.accounts.plans import Limits
from models.jobs.budgets import Draw, draw, settle
from models.jobs.fence import RUNNING, execute_fenced
from models.jobs.jobs import SINCE_ROOT, Job, JoinRule, NewJob, enqueue
from models.jobs.quota import check_quota, lock_month
from models.jobs.serial_keys import check_not_held_above, lock_serial_keys
from models.journal.archive import archive_missing
from models.journal.events import Event
from models.platform.database import Connection, fetch_one
from models.platform.errors import PermanentFailure

# Another job may have adopted one above this one since its claim: then it belongs to another tree.
BEGIN_WAIT = f"""
SELECT parent_id, root_id, depth FROM jobs
WHERE {RUNNING}
  AND cancel_requested_at IS NULL
FOR NO KEY UPDATE
"""

# Wait for all unfinished children, also those of an earlier wait.
WAIT = """
UPDATE jobs SET state = CASE unfinished.count WHEN 0 THEN 'queued' ELSE 'waiting' END,
                pending_children = unfinished.count, join_rule = %(join_rule)s,
                wait_until = now() + make_interval(secs => %(timeout)s),
                run_at = now(), published_at = NULL, message_id = NULL, worker = NULL, lease_until = NULL
FROM (SELECT count(*) FROM jobs
      WHERE parent_id = %(id)s AND state IN ('scheduled', 'queued', 'running', 'waiting')) AS unfinished
WHERE id = %(id)s
"""

# A job whose unique key a new child has, with all jobs below it. It may become the child, whether or not it has ended,
# unless it is above the parent. While it is unfinished it must have no budget of its own, and no job of its tree the
# serial key of one above: they would wait for each other for ever.
CANDIDATE = """
WITH RECURSIVE above AS (
    SELECT id, parent_id, serial_key, finished_at FROM jobs WHERE id = %(parent_id)s
    UNION
    SELECT jobs.id, jobs.parent_id, jobs.serial_key, jobs.finished_at FROM jobs JOIN above ON jobs.id = above.parent_id
), tree AS (
    SELECT id AS tree_id, %(depth)s::int AS tree_depth FROM jobs
    WHERE unique_key = %(unique_key)s AND account_id = %(account_id)s
      AND coalesce(parent_id, %(parent_id)s) = %(parent_id)s AND id NOT IN (SELECT id FROM above)
    UNION ALL
    SELECT id, tree_depth + 1 FROM jobs JOIN tree ON parent_id = tree_id
), candidate AS (
    SELECT tree_id, tree_depth FROM tree WHERE NOT EXISTS (
        SELECT FROM tree JOIN jobs ON id = tree_id
        WHERE finished_at IS NULL
          AND (serial_key IN (SELECT serial_key FROM above WHERE finished_at IS NULL)
               OR EXISTS (SELECT FROM budgets WHERE budgets.root_id = id)))
)"""

# Children before their parents, in the order in which ending jobs lock them.
ADOPT = (
    CANDIDATE
    + """, moved AS (
    SELECT id AS moved_id, tree_depth FROM jobs JOIN candidate ON id = tree_id
    WHERE parent_id IS NULL OR root_id IS DISTINCT FROM %(root_id)s OR depth <> tree_depth
    ORDER BY tree_depth DESC, id DESC FOR NO KEY UPDATE OF jobs
)
UPDATE jobs SET parent_id = coalesce(parent_id, %(parent_id)s), root_id = %(root_id)s, depth = tree_depth
FROM moved WHERE id = moved_id
"""
)

IS_CHILD = CANDIDATE + "SELECT tree_id FROM candidate LIMIT 1"

# Two parents may adopt the same job at once.
LOCK_UNIQUE_KEY = "SELECT pg_advisory_xact_lock(hashtextextended('adopt ' || %(unique_key)s, 0))"


def wait_for_children(
    connection: Connection,
    job: Job,
    jobs: Sequence[NewJob],
    events: Sequence[Event] = (),
    *,
    join_rule: JoinRule = "all",
    timeout: float | None = None,
    within_month: bool = False,
    record: Callable[[Connection], None] | None = None,
    spent: Draw | None = None,
) -> None:
    """Enqueue children and let the job wait for them without a thread, at most `timeout` seconds.

    The next attempt starts when the join rule is met, all children have ended, or the time is up; it reads the states
    of the children. What new children draw is drawn from the tree's budget. A child whose unique key is taken is
    adopted with its descendants if that job has no parent: see decision 36.

    within_month  what the children reserve must fit what the account's month has left
    record        writes rows that belong to the children
    spent         what the job itself has used of its tree's budget since its last wait

    Raises Fenced, also if the job was cancelled before, InsufficientQuota, BudgetExhausted, and PermanentFailure for a
    job that cannot be a child.
    """
    # Before any job: the end of a child holds its serial key when it locks this one.
    limits = lock_month(connection, job.account_id) if within_month else Limits()
    serial_keys = [child.serial_key for child in jobs if child.serial_key is not None]
    lock_serial_keys(connection, serial_keys)
    job = replace(job, **execute_fenced(connection, job, BEGIN_WAIT, {}))
    check_not_held_above(connection, serial_keys, job.id)
    check_quota(connection, job.account_id, limits, sum(child.reserved_tokens for child in jobs))
    inserted = [child for child in jobs if _insert_or_adopt(connection, child, job)]
    connection.execute(WAIT, {"id": job.id, "join_rule": join_rule, "timeout": timeout})
    archive_missing(connection, job.id, events)
    if record is not None:
        record(connection)
    _draw(connection, job, [child.draw for child in inserted if child.draw is not None], spent)


def _insert_or_adopt(connection: Connection, child: NewJob, parent: Job) -> bool:
    """Return whether the child was inserted. Raises PermanentFailure if it was neither inserted nor adopted."""
    if enqueue(connection, child, parent=parent):
        return True
    parameters = {
        "unique_key": child.unique_key,
        "account_id": child.account_id,
        "parent_id": parent.id,
        "root_id": parent.root_id or parent.id,
        "depth": parent.depth + 1,
    }
    connection.execute(LOCK_UNIQUE_KEY, parameters)
    # A job that was moved starts no children of the former tree, so a pass without rows has moved all of them.
    while connection.execute(ADOPT, parameters).rowcount:
        pass
    if fetch_one(connection, IS_CHILD, parameters) is not None:
        return False
    if enqueue(connection, child, parent=parent):  # the job with the key has just been moved to `ended_jobs`
        return True
    message = f"The job with the key {child.unique_key} has another parent, or cannot be a child of {parent.id}."
    raise PermanentFailure(message, code="child_taken")


def _draw(connection: Connection, parent: Job, draws: Sequence[Draw], spent: Draw | None) -> None:
    """Count what the parent has spent, and draw what the new children may use.

    Last in the transaction: see `models/jobs/budgets.py`.
    """
    if spent is not None:
        settle(connection, parent.root_id or parent.id, tokens=-spent.tokens, money=-spent.money)
    if draws:
        draw(
            connection,
            parent.root_id or parent.id,
            tokens=sum(each.tokens for each in draws),
            money=sum((each.money for each in draws), Decimal(0)),
            calls=sum(each.calls for each in draws),
            depth=parent.depth + 1,
        )


# The parent is locked in any state, so that a parent which begins to wait counts this child as ended or is woken by it.
LOCK_PARENT = "SELECT FROM jobs WHERE id = %(id)s FOR NO KEY UPDATE"

# Count one child as ended. Queue the parent if it was the last one, or the one that decides its join rule.
WAKE_PARENT = f"""
UPDATE jobs SET pending_children = pending_children - 1,
                state = CASE WHEN pending_children <= 1
                               OR join_rule = CASE WHEN %(completed)s THEN 'any' ELSE 'fail_fast' END
                             THEN 'queued' ELSE 'waiting' END,
                run_at = {SINCE_ROOT.format(root_id="coalesce(jobs.root_id, jobs.id)")}, published_at = NULL
WHERE id = %(id)s AND state = 'waiting'
"""


def wake_parent(connection: Connection, parent_id: str, *, completed: bool) -> None:
    """Count a child as ended in the caller's transaction, which ends it, and wake its parent if that was decisive."""
    connection.execute(LOCK_PARENT, {"id": parent_id})
    connection.execute(WAKE_PARENT, {"id": parent_id, "completed": completed})

"""Children of a job: insert or adopt them, wait for them, and wake their parent."""

from collections.abc import Sequence

from models.jobs.fence import RUNNING, execute_fenced
from models.jobs.jobs import Job, JoinRule, NewJob, enqueue
from models.journal.archive import archive_missing
from models.journal.events import Event
from models.platform.database import Connection, fetch_one
from models.platform.errors import PermanentFailure

BEGIN_WAIT = f"""
SELECT id FROM jobs
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

# A job whose unique key a new child has becomes the child, whether or not it has ended. Not one above the parent, nor
# one that waits for the parent's serial key: they would wait for each other for ever.
ADOPT = """
WITH RECURSIVE above AS (
    SELECT id, parent_id FROM jobs WHERE id = %(parent_id)s
    UNION
    SELECT jobs.id, jobs.parent_id FROM jobs JOIN above ON jobs.id = above.parent_id
)
UPDATE jobs SET parent_id = %(parent_id)s, root_id = %(root_id)s, depth = %(depth)s
WHERE unique_key = %(unique_key)s AND account_id = %(account_id)s AND parent_id IS NULL
  AND id NOT IN (SELECT id FROM above)
  AND (serial_key IS NULL OR serial_key IS DISTINCT FROM %(serial_key)s OR finished_at IS NOT NULL)
"""

IS_CHILD = "SELECT FROM jobs WHERE unique_key = %(unique_key)s AND parent_id = %(parent_id)s"


def wait_for_children(
    connection: Connection,
    job: Job,
    jobs: Sequence[NewJob],
    events: Sequence[Event] = (),
    *,
    join_rule: JoinRule = "all",
    timeout: float | None = None,
) -> None:
    """Enqueue children and let the job wait for them without a thread, at most `timeout` seconds.

    The next attempt starts when the join rule is met, all children have ended, or the time is up; it reads the states
    of the children. A child whose unique key is taken is adopted if that job has no parent. Raises Fenced, also if the
    job was cancelled before, and PermanentFailure("child_taken") if it has another parent or cannot be a child.
    """
    execute_fenced(connection, job, BEGIN_WAIT, {})
    for child in jobs:
        if not enqueue(connection, child, parent=job):
            _adopt(connection, child, job)
    connection.execute(WAIT, {"id": job.id, "join_rule": join_rule, "timeout": timeout})
    archive_missing(connection, job.id, events)


def _adopt(connection: Connection, child: NewJob, parent: Job) -> None:
    parameters = {
        "unique_key": child.unique_key,
        "account_id": child.account_id,
        "parent_id": parent.id,
        "root_id": parent.root_id or parent.id,
        "depth": parent.depth + 1,
        "serial_key": parent.serial_key,
    }
    connection.execute(ADOPT, parameters)
    if child.unique_key is not None and fetch_one(connection, IS_CHILD, parameters) is None:
        message = f"The job with the key {child.unique_key} has another parent, or cannot be a child of {parent.id}."
        raise PermanentFailure(message, code="child_taken")


# The parent is locked in any state, so that a parent which begins to wait counts this child as ended or is woken by it.
LOCK_PARENT = "SELECT FROM jobs WHERE id = %(id)s FOR NO KEY UPDATE"

# Count one child as ended. Queue the parent if it was the last one, or the one that decides its join rule.
WAKE_PARENT = """
UPDATE jobs SET pending_children = pending_children - 1,
                state = CASE WHEN pending_children <= 1
                               OR join_rule = CASE WHEN %(completed)s THEN 'any' ELSE 'fail_fast' END
                             THEN 'queued' ELSE 'waiting' END,
                run_at = now(), published_at = NULL
WHERE id = %(id)s AND state = 'waiting'
"""


def wake_parent(connection: Connection, parent_id: str, *, completed: bool) -> None:
    """Count a child as ended in the caller's transaction, which ends it, and wake its parent if that was decisive."""
    connection.execute(LOCK_PARENT, {"id": parent_id})
    connection.execute(WAKE_PARENT, {"id": parent_id, "completed": completed})

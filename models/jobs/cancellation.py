"""Cancel a job and its subtree.

The whole subtree is flagged. A job without an attempt ends at once. One that waits for children or for its next attempt
is queued, so that a worker can finish what is journalled and end it. A running one is notified through Redis, and by
its next heartbeat at the latest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from models.jobs.attempts import WAKE_PARENT
from models.journal.archive import archive, read_archive
from models.journal.events import Event, event
from models.platform.database import Connection, fetch_all, fetch_one

# The unfinished jobs of the subtrees that are not flagged yet; the youngest first, and so children before their
# parents, in the order in which ending jobs lock them.
UNFLAGGED = """
WITH RECURSIVE tree AS (
    SELECT id FROM jobs WHERE id = ANY(%(ids)s) AND account_id = %(account_id)s
    UNION ALL
    SELECT jobs.id FROM jobs JOIN tree ON jobs.parent_id = tree.id
)
SELECT jobs.id FROM jobs JOIN tree USING (id)
WHERE jobs.state IN ('queued', 'running', 'waiting') AND jobs.cancel_requested_at IS NULL
ORDER BY jobs.id DESC
FOR NO KEY UPDATE OF jobs
"""

# Jobs without an attempt end here, waiting ones are queued, running ones run until they are notified.
FLAG = """
UPDATE jobs SET
    cancel_requested_at = now(),
    state = CASE WHEN state = 'queued' AND attempt = 0 THEN 'cancelled'
                 WHEN state = 'waiting' THEN 'queued' ELSE state END,
    finished_at = CASE WHEN state = 'queued' AND attempt = 0 THEN now() END,
    run_at = CASE WHEN state = 'running' THEN run_at ELSE now() END,
    published_at = CASE WHEN state = 'running' THEN published_at END
WHERE id = %(id)s AND state IN ('queued', 'running', 'waiting')
RETURNING id, state, parent_id
"""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """The effect of a cancel: jobs that ended at once, with their last events, and running jobs to notify."""

    ended: dict[str, Event]
    running: list[str]


def cancel(connection: Connection, job_id: str, account_id: str) -> Cancellation:
    """Cancel a job of an account and its subtree in the caller's transaction. Ended jobs are not changed.

    After the commit append the last events to the journals, notify the workers and nudge the relay.
    """
    return cancel_all(connection, [job_id], account_id)


def cancel_all(connection: Connection, job_ids: Sequence[str], account_id: str) -> Cancellation:
    """Cancel several jobs and their subtrees; see `cancel`."""
    result = Cancellation({}, [])
    # A flagged parent starts no children, so a pass without rows has found all of them.
    while rows := fetch_all(connection, UNFLAGGED, {"ids": list(job_ids), "account_id": account_id}):
        for row in rows:
            _flag(connection, row["id"], result)
    return result


def _flag(connection: Connection, job_id: str, result: Cancellation) -> None:
    row = fetch_one(connection, FLAG, {"id": job_id})
    if row is None:
        return
    if row["state"] == "running":
        result.running.append(job_id)
    elif row["state"] == "cancelled":
        result.ended[job_id] = _last_event(connection, job_id)
        if row["parent_id"]:
            connection.execute(WAKE_PARENT, {"id": row["parent_id"]})


def _last_event(connection: Connection, job_id: str) -> Event:
    archived = read_archive(connection, job_id)
    ending = event(archived.last + 1, "sangha:job.cancelled", {"job_id": job_id, **_response_field(archived.events)})
    archive(connection, job_id, [ending])
    return ending


def _response_field(events: Sequence[Event]) -> dict[str, Any]:
    """Return the response object of the turn's last event, with the status `cancelled`; nothing if there is none."""
    last = orjson.loads(events[-1].data) if events else {}
    return {"response": {**last["response"], "status": "cancelled"}} if "response" in last else {}

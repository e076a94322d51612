"""Cancelling a job and all that it started.

The flag goes on the whole subtree. A job that no worker has touched ends on the spot and never runs. One that waits
for its children, or for another attempt, is sent to a worker, which settles what it has done so far and ends it. One
that runs is told over Redis, and by its next heartbeat at the latest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from models.jobs.attempts import WAKE_PARENT
from models.journal.archive import archive, read_archive
from models.journal.events import Event, event
from models.platform.database import Connection, fetch_all, fetch_one

# The unfinished part of the subtrees that has no flag yet; the youngest first, and so children before their parents, as
# ends lock them.
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

# Untouched jobs end here; those that wait go to a worker; running ones keep running until they notice.
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
    """What a cancel did: jobs that ended at once, with their last events, and jobs that run and must be told."""

    ended: dict[str, Event]
    running: list[str]


def cancel(connection: Connection, job_id: str, account_id: str) -> Cancellation:
    """Cancel a job of an account and its subtree, in the caller's transaction. Ended jobs stay as they are.

    After the commit: append the last events to the journals, tell the workers, nudge the relay.
    """
    return cancel_all(connection, [job_id], account_id)


def cancel_all(connection: Connection, job_ids: Sequence[str], account_id: str) -> Cancellation:
    """Cancel several jobs and their subtrees like one."""
    result = Cancellation({}, [])
    # A parent that has the flag spawns no more, so a pass that finds nothing has found everything.
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
    told = read_archive(connection, job_id)
    ending = event(told.last + 1, "sangha:job.cancelled", {"job_id": job_id, **_shown(told.events)})
    archive(connection, job_id, [ending])
    return ending


def _shown(told: Sequence[Event]) -> dict[str, Any]:
    """What a turn's stream has shown so far: its last event shows it again, as it is now."""
    last = orjson.loads(told[-1].data) if told else {}
    return {"response": {**last["response"], "status": "cancelled"}} if "response" in last else {}

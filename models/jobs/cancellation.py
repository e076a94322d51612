"""Cancel a job and its subtree.

The whole subtree is flagged. A job without an attempt ends at once. One that waits for children or for its next attempt
is queued, so that a worker can finish what is journalled and end it. A running one is notified through Redis, and by
its next heartbeat at the latest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from models.jobs.budgets import settle_draws
from models.jobs.children import wake_parent
from models.jobs.route_costs import settle_route, shown_route
from models.jobs.serial_keys import unblock_next
from models.journal.archive import archive, read_chunks
from models.journal.events import Event, event
from models.journal.shared_fields import SHARED, without_fields
from models.platform.database import Connection, fetch_all

# The subtrees, and a lock on the serial key of each of their unfinished jobs, in the order of the locks' numbers.
TREE = """
WITH RECURSIVE tree AS (
    SELECT id FROM jobs WHERE id = ANY(%(ids)s) AND account_id = %(account_id)s
    UNION
    SELECT jobs.id FROM jobs JOIN tree ON jobs.parent_id = tree.id
)"""
LOCK_SERIAL_KEYS = (
    TREE
    + """
SELECT pg_advisory_xact_lock(key) FROM (
    SELECT DISTINCT hashtextextended('serial ' || serial_key, 0) AS key FROM jobs JOIN tree USING (id)
    WHERE serial_key IS NOT NULL AND state IN ('scheduled', 'queued', 'running', 'waiting')
    ORDER BY key) AS keys
"""
)

# Flag the unfinished jobs that are not flagged yet: children before their parents, in the order in which ending jobs
# lock them. A child that was adopted may be older than its parent. Jobs without an attempt end here, others that do not
# run are queued, running ones run until they are notified.
FLAG = (
    TREE
    + """, unflagged AS (
    SELECT jobs.id AS unflagged_id FROM jobs JOIN tree USING (id)
    WHERE jobs.state IN ('scheduled', 'queued', 'running', 'waiting') AND jobs.cancel_requested_at IS NULL
    ORDER BY jobs.depth DESC, jobs.id DESC
    FOR NO KEY UPDATE OF jobs
)
UPDATE jobs SET
    cancel_requested_at = now(),
    state = CASE WHEN state IN ('scheduled', 'queued') AND attempt = 0 THEN 'cancelled'
                 WHEN state IN ('scheduled', 'waiting') THEN 'queued' ELSE state END,
    finished_at = CASE WHEN state IN ('scheduled', 'queued') AND attempt = 0 THEN now() END,
    run_at = CASE WHEN state = 'running' THEN run_at ELSE now() END,
    published_at = CASE WHEN state = 'running' THEN published_at END
FROM unflagged WHERE id = unflagged_id
RETURNING id, state, parent_id, serial_key, coalesce(lane, account_id) AS lane,
          arguments -> 'budget_draw' AS budget_draw, arguments -> 'drawn' AS drawn, arguments -> 'route' AS route
"""
)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """The effect of a cancel.

    ended    the jobs that ended at once, with their last events
    running  running jobs to notify
    lanes    in which jobs have become due
    drawn    arguments of ended jobs with what was drawn from the account's tokens per minute
    """

    account_id: str
    ended: dict[str, Event] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    lanes: set[str] = field(default_factory=set)
    drawn: list[Mapping[str, Any]] = field(default_factory=list)


def cancel(connection: Connection, job_id: str, account_id: str) -> Cancellation:
    """Cancel a job of an account and its subtree in the caller's transaction. Ended jobs are not changed.

    After the commit append the last events to the journals, notify the workers, nudge the relay and return the tokens.
    """
    return cancel_all(connection, [job_id], account_id)


def cancel_all(
    connection: Connection, job_ids: Sequence[str], account_id: str, *, check: Callable[[], None] = lambda: None
) -> Cancellation:
    """Cancel several jobs and their subtrees; see `cancel`.

    check  may lock a job above them, and raise an error to undo the cancel
    """
    result = Cancellation(account_id)
    parameters = {"ids": list(job_ids), "account_id": account_id}
    ended: list[Mapping[str, Any]] = []
    # A flagged parent starts no children, so a pass without rows has found all of them.
    while rows := _flag(connection, parameters):
        result.running.extend(row["id"] for row in rows if row["state"] == "running")
        result.lanes.update(row["lane"] for row in rows if row["state"] == "queued")
        for row in sorted(rows, key=lambda row: row["id"], reverse=True):
            if row["state"] == "cancelled":
                _end(connection, row, result)
                ended.append(row)
    check()
    settle_draws(connection, ended)  # last: see `models/jobs/budgets.py`
    for arguments in ended:
        settle_route(connection, arguments["id"], arguments)
    return result


def _flag(connection: Connection, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    connection.execute(LOCK_SERIAL_KEYS, parameters)
    return fetch_all(connection, FLAG, parameters)


def _end(connection: Connection, row: Mapping[str, Any], result: Cancellation) -> None:
    """Complete the end of a job that had no attempt: its last event, its parent, and the next job of its key."""
    result.ended[row["id"]] = _last_event(connection, row["id"], row["route"])
    if row["drawn"]:
        result.drawn.append({"drawn": row["drawn"]})
    if row["parent_id"]:
        wake_parent(connection, row["parent_id"], completed=False)
    if row["serial_key"] and (unblocked := unblock_next(connection, row["serial_key"]).fetchone()):
        result.lanes.add(unblocked["lane"])


def _last_event(connection: Connection, job_id: str, route: Mapping[str, Any] | None) -> Event:
    archived = read_chunks(connection, job_id)
    ending = event(archived.last + 1, "sangha:job.cancelled", _last_payload(job_id, archived.events, route))
    archive(connection, job_id, [ending])
    return ending


def _last_payload(job_id: str, events: Sequence[Event], route: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the payload of the last event; for a turn with its route and the response object of the event before."""
    last = orjson.loads(events[-1].data) if events else {}
    if "response" not in last:
        return {"job_id": job_id}
    moved = {"sangha": {"route": shown_route(route)}} if route else {}
    payload = {"job_id": job_id, "response": {**last["response"], "status": "cancelled", **moved}}
    return without_fields(payload, last.get(SHARED, {}))

"""Counts of jobs for operators, by partial indexes: their cost does not depend on the number of ended jobs.

The states are literals: with parameters the planner could not know that the indexes contain the rows.
"""

from models.jobs.outbox import SMALLEST_DEPTH, SUSPECT_CRASHES
from models.platform.database import Connection, fetch_all, fetch_one

#: Scheduled jobs that are counted exactly; there may be a million.
MAX_COUNTED = 10_000

# By the index `jobs_unfinished`. A job is `dead` until an operator replays or discards it.
UNFINISHED = """
SELECT queue, kind, state, count(*) AS count FROM jobs
WHERE state IN ('queued', 'running', 'waiting', 'dead') GROUP BY queue, kind, state
"""


def count_unfinished(connection: Connection) -> dict[tuple[str, str, str], int]:
    """Count the jobs that are due, running, waiting or dead by (queue, kind, state)."""
    return {(row["queue"], row["kind"], row["state"]): row["count"] for row in fetch_all(connection, UNFINISHED)}


# In the order of the index `jobs_scheduled`, so that only the counted rows are read.
SCHEDULED = f"""
SELECT count(*) AS count FROM (
    SELECT FROM jobs WHERE state = 'scheduled' ORDER BY run_at LIMIT {MAX_COUNTED}) AS next
"""

# The pages of that index, with the entries per page of its last vacuum, or those of a new index.
ESTIMATE = """
SELECT (pg_relation_size(oid) / current_setting('block_size')::int
        * CASE WHEN reltuples > 0 AND relpages > 0 THEN reltuples / relpages ELSE 300 END)::bigint AS count
FROM pg_class WHERE oid = 'jobs_scheduled'::regclass
"""


def estimate_scheduled(connection: Connection) -> int:
    """Return the number of jobs that are due later; from MAX_COUNTED on an estimate by the size of their index."""
    counted = fetch_one(connection, SCHEDULED)
    assert counted is not None
    if counted["count"] < MAX_COUNTED:
        return int(counted["count"])
    estimate = fetch_one(connection, ESTIMATE)
    return max(MAX_COUNTED, estimate["count"] if estimate else 0)


SCHEDULED_BY_QUEUE = f"""
SELECT queue, count(*) AS count FROM (
    SELECT queue FROM jobs WHERE state = 'scheduled' ORDER BY run_at LIMIT {MAX_COUNTED}) AS next GROUP BY queue
"""


def count_scheduled(connection: Connection) -> dict[str, int]:
    """Count the next MAX_COUNTED jobs that are due later by queue."""
    return {row["queue"]: row["count"] for row in fetch_all(connection, SCHEDULED_BY_QUEUE)}


OLDEST_DUE = """
SELECT queue, extract(epoch FROM now() - min(run_at))::float AS seconds FROM jobs
WHERE state = 'queued' AND run_at <= now() GROUP BY queue
"""


def oldest_due(connection: Connection) -> dict[str, float]:
    """Return the seconds for which the longest waiting due job of each queue has waited for a worker."""
    return {row["queue"]: row["seconds"] for row in fetch_all(connection, OLDEST_DUE)}


# Of lanes with nothing in flight, in queues with few: the others wait by design, as do suspects. See `outbox`.
RELAY_LAG = f"""
WITH due AS MATERIALIZED (
    SELECT queue, coalesce(lane, account_id) AS lane, min(run_at) AS run_at FROM jobs
    WHERE state || '' = 'queued' AND published_at IS NULL AND NOT blocked AND run_at <= now()
      AND crashes < {SUSPECT_CRASHES} AND serial_key IS NULL
    GROUP BY queue, coalesce(lane, account_id))
SELECT extract(epoch FROM now() - min(run_at))::float AS seconds FROM due
WHERE NOT EXISTS (
    SELECT FROM jobs AS busy WHERE busy.queue = due.queue AND coalesce(busy.lane, busy.account_id) = due.lane
      AND (busy.state = 'running' OR (busy.state = 'queued' AND busy.published_at IS NOT NULL)))
  AND {SMALLEST_DEPTH} > (SELECT count(*) FROM (
    SELECT FROM jobs AS busy WHERE busy.queue = due.queue
      AND (busy.state = 'running' OR (busy.state = 'queued' AND busy.published_at IS NOT NULL))
    LIMIT {SMALLEST_DEPTH}) AS in_flight)
"""


def relay_lag(connection: Connection) -> float:
    """Return the seconds for which the oldest job that the relay may publish has been due; 0 without one."""
    row = fetch_one(connection, RELAY_LAG)
    return (row["seconds"] if row else None) or 0.0

"""The times by which background turns are to be complete.

A turn with a completion window waits in the queue of background work. If it still does after half of the window, it
moves to the queue of interactive turns. Its class stays `batch`, and so does its price.
"""

from models.platform.database import Connection, fetch_all

INSERT = """
INSERT INTO completion_windows (job_id, promote_at, complete_by)
VALUES (%(job_id)s, now() + make_interval(secs => %(seconds)s / 2.0), now() + make_interval(secs => %(seconds)s))
"""


def insert(connection: Connection, job_id: str, seconds: int) -> None:
    """Store the window of a job, in the transaction that inserts it."""
    connection.execute(INSERT, {"job_id": job_id, "seconds": seconds})


# The batch queue is the other one with this suffix. A running job is left alone: if it yields, the next pass finds it.
PROMOTE = """
WITH late AS MATERIALIZED (
    SELECT job_id AS late_id FROM completion_windows JOIN jobs ON jobs.id = job_id
    WHERE promote_at <= now() AND jobs.state IN ('queued', 'scheduled') AND right(jobs.queue, 6) = '_batch'
    ORDER BY job_id DESC LIMIT %(limit)s FOR NO KEY UPDATE OF jobs SKIP LOCKED
)
UPDATE jobs SET queue = left(queue, -6), published_at = NULL, sends = 0 FROM late WHERE id = late_id
RETURNING id
"""

DELETE_OVER = """
DELETE FROM completion_windows USING jobs
WHERE promote_at <= now() AND jobs.id = job_id AND (jobs.finished_at IS NOT NULL OR right(jobs.queue, 6) <> '_batch')
"""


def promote_late(connection: Connection, limit: int = 1000) -> int:
    """Move the turns that have waited for half of their window to the interactive queue. Returns how many."""
    promoted = fetch_all(connection, PROMOTE, {"limit": limit})
    connection.execute(DELETE_OVER)
    return len(promoted)

"""The windows of lanes: how many jobs of a queue each may have in flight, and whether a long one should yield.

A window is the number of threads that serve the queue; of SHARED_QUEUES, one less, and of those in PARTS a part of it.
The threads that one lane leaves may all be used by long jobs of others, so each long job looks between its steps
whether others wait.
"""

from models.jobs.catalogue import CATALOGUE, SHARED_QUEUES
from models.jobs.jobs import Job, lane_of
from models.jobs.leases import RENEWAL
from models.platform.database import Connection, fetch_all, fetch_one

#: Seconds after its last heartbeat for which a worker's threads count for the windows: two heartbeats. A killed worker
#: must not enlarge them for long; a slow one only makes them smaller for a moment.
RECENT = 2 * RENEWAL + 1

#: The part of a queue's threads that a lane may use at most, as a divisor. Calls of tools wait for servers of the
#: account, which may not answer for minutes, and webhooks for endpoints, which may not answer for 15 seconds.
PARTS = {"tools": 4, "webhooks": 8, "webhooks_batch": 16}

#: The window while no worker that serves a queue is registered.
SMALLEST_WINDOW = 4

# Threads that serve each queue. A worker of the previous version serves each of its queues with all threads.
CAPACITY = """
SELECT queue, sum(coalesce((queue_threads ->> queue)::int, threads))::int AS threads
FROM workers CROSS JOIN LATERAL unnest(queues) AS queue
WHERE seen_at > now() - make_interval(secs => %(recent)s) GROUP BY queue
"""


def window_sizes(connection: Connection) -> dict[str, int]:
    """Return how many jobs of each queue a lane may have in flight."""
    threads = {row["queue"]: row["threads"] for row in fetch_all(connection, CAPACITY, {"recent": RECENT})}
    queues = {kind.queue for kind in CATALOGUE.values()}
    return {queue: _window(queue, threads.get(queue)) for queue in sorted(queues | threads.keys())}


def _window(queue: str, threads: int | None) -> int:
    """Return the window of a queue that so many threads serve; None: no worker is registered."""
    if threads is None:
        return SMALLEST_WINDOW
    if queue in PARTS:
        return max(1, threads // PARTS[queue])
    return max(1, threads - 1 if queue in SHARED_QUEUES else threads)


# A message that is younger is on its way to an idle thread.
OTHERS_WAIT = """
SELECT true FROM jobs
WHERE queue = %(queue)s AND state = 'queued' AND published_at < now() - interval '0.25 seconds'
  AND coalesce(lane, account_id) <> %(lane)s
LIMIT 1
"""


def others_wait(connection: Connection, job: Job) -> bool:
    """Return whether jobs of other lanes wait for a thread of the job's queue."""
    return fetch_one(connection, OTHERS_WAIT, {"queue": job.queue, "lane": lane_of(job)}) is not None

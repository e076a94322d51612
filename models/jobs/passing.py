"""Turns of the tier `priority`: they pass the others of their queue, up to a share of its threads.

Their rows have a better priority than others of their kind, and their messages a queue of their own beside that of the
others. A worker serves it with threads of its own (`models.jobs.catalogue.priority_share`).
"""

from collections import Counter
from collections.abc import Collection, Mapping

from models.jobs.catalogue import CATALOGUE, priority_queue
from models.platform.database import Connection, fetch_all


def passes_others(kind: str, priority: int) -> bool:
    """Return whether a job has a better priority than others of its kind."""
    return priority < CATALOGUE[kind].priority


IN_FLIGHT = """
SELECT queue, count(*) AS count FROM jobs
WHERE queue = ANY(%(queues)s) AND kind = 'turn.run' AND priority < %(priority)s
  AND (state = 'running' OR (state = 'queued' AND published_at IS NOT NULL))
GROUP BY queue
"""


def free_places(connection: Connection, queues: Collection[str], windows: Mapping[str, int]) -> Counter[str]:
    """Return how many more turns may pass the others of each queue.

    None where no worker has threads for them, as where only those of the previous version run.
    """
    parameters = {"queues": sorted(queues), "priority": CATALOGUE["turn.run"].priority}
    in_flight = {row["queue"]: int(row["count"]) for row in fetch_all(connection, IN_FLIGHT, parameters)}
    return Counter({queue: windows.get(priority_queue(queue), 0) - in_flight.get(queue, 0) for queue in queues})

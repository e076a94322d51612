"""Jobs that wait in a queue which no worker serves, although a worker serves their model: its queue has changed.

A model's queue depends on which model is the default, and an endpoint may be removed from the settings. A worker that
serves the old queue moves the jobs of other models that it claims; where none does, the sweeper calls this.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from models.jobs.catalogue import batch_queue
from models.jobs.leases import LEASE
from models.platform.database import Connection, fetch_all
from models.serving.moves import return_home
from models.serving.queues import DEFAULT_QUEUE, endpoint_queue, model_queue

#: Jobs of a queue that one call looks at: the oldest ones, which are from before the change.
LIMIT = 2000

#: The model that a job's request names.
MODEL = """coalesce(jobs.arguments ->> 'model', jobs.arguments -> 'request' ->> 'model',
                (SELECT request ->> 'model' FROM responses WHERE responses.job_id = jobs.id))"""

# By the workers that are alive: what they serve, and every queue.
SERVED = f"""
SELECT DISTINCT entry ->> 'model' AS model, entry ->> 'queue' AS queue
FROM workers CROSS JOIN LATERAL jsonb_array_elements(served) AS entry
WHERE pid > 0 AND seen_at > now() - interval '{LEASE} seconds' AND entry ->> 'queue' NOT LIKE 'upstream.%%'
"""
QUEUES = f"""
SELECT DISTINCT unnest(queues) AS queue FROM workers WHERE pid > 0 AND seen_at > now() - interval '{LEASE} seconds'
"""

ENDPOINTS = "SELECT DISTINCT model_endpoint AS endpoint FROM served_models WHERE model_endpoint <> ''"

MOVE = f"""
WITH oldest AS MATERIALIZED (
    SELECT id AS stranded_id, {MODEL} AS model FROM jobs
    WHERE queue = %(old)s AND state IN ('queued', 'scheduled')
    ORDER BY id LIMIT {LIMIT} FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE jobs SET queue = %(queue)s, published_at = NULL FROM oldest WHERE id = stranded_id AND model = %(model)s
"""


def move_stranded(connection: Connection) -> int:
    """Move the jobs of served models out of queues that no worker serves. Returns how many."""
    served_queues = {row["queue"] for row in fetch_all(connection, QUEUES)}
    moved = 0
    for row in fetch_all(connection, SERVED):
        model, queue = row["model"], row["queue"]
        for old in {DEFAULT_QUEUE, model_queue(model, "")} - {queue}:
            for before, after in ((old, queue), (batch_queue(old), batch_queue(queue))):
                if before not in served_queues:
                    parameters = {"old": before, "queue": after, "model": model}
                    moved += connection.execute(MOVE, parameters).rowcount
    return moved + _return_from_unserved(connection, served_queues)


def _return_from_unserved(connection: Connection, served_queues: Collection[str]) -> int:
    """Return the turns that were moved to endpoints which no worker serves. Returns how many."""
    returned = 0
    for row in fetch_all(connection, ENDPOINTS):
        if endpoint_queue(row["endpoint"]) not in served_queues:
            with connection.transaction():
                returned += len(return_home(connection, row["endpoint"], "endpoint_failed").job_ids)
    return returned


@dataclass(frozen=True, slots=True)
class UnservedQueue:
    """A queue of a model, or of an endpoint, in which jobs wait although no live worker serves it."""

    queue: str
    jobs: int
    oldest: float


UNSERVED = f"""
SELECT queue, count(*)::int AS jobs, extract(epoch FROM now() - min(run_at))::float AS oldest
FROM jobs WHERE state = 'queued' AND (queue LIKE 'inference%%' OR queue LIKE 'upstream.%%')
  AND queue NOT IN (SELECT unnest(queues) FROM workers
                    WHERE pid > 0 AND seen_at > now() - interval '{LEASE} seconds')
GROUP BY queue ORDER BY queue
"""


def list_unserved(connection: Connection) -> Mapping[str, UnservedQueue]:
    """Return the queues of models in which jobs wait for a worker that there is not. For operators: it reads all."""
    return {row["queue"]: UnservedQueue(**row) for row in fetch_all(connection, UNSERVED)}

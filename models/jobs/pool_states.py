"""The state of each pool: its workers, and its jobs by state."""

from dataclasses import dataclass

from models.jobs.catalogue import POOLS
from models.jobs.workers import list_live
from models.platform.database import Connection, fetch_all


@dataclass(frozen=True, slots=True)
class PoolState:
    """The state of a pool. `oldest` is the seconds for which its longest waiting due job has waited for a worker."""

    pool: str
    workers: int
    threads: int
    queued: int
    running: int
    waiting: int
    dead: int
    oldest: float


BY_QUEUE = """
SELECT queue,
       count(*) FILTER (WHERE state = 'queued')::int AS queued,
       count(*) FILTER (WHERE state = 'running')::int AS running,
       count(*) FILTER (WHERE state = 'waiting')::int AS waiting,
       count(*) FILTER (WHERE state = 'dead')::int AS dead,
       coalesce(extract(epoch FROM now() - min(run_at) FILTER (WHERE state = 'queued' AND run_at <= now())), 0)::float
           AS oldest
FROM jobs WHERE state IN ('queued', 'running', 'waiting', 'dead') GROUP BY queue
"""


def list_pool_states(connection: Connection) -> list[PoolState]:
    """Return the state of every pool."""
    queues = {row["queue"]: row for row in fetch_all(connection, BY_QUEUE)}
    workers = list_live(connection)
    states = []
    for pool, served in POOLS.items():
        rows = [queues[queue] for queue in served if queue in queues]
        serving = [worker for worker in workers if pool in worker.pools]
        counts = {name: sum(row[name] for row in rows) for name in ("queued", "running", "waiting", "dead")}
        oldest = max((row["oldest"] for row in rows), default=0.0)
        states.append(PoolState(pool, len(serving), sum(worker.threads for worker in serving), **counts, oldest=oldest))
    return states

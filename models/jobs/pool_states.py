"""The state of each pool: its workers, and its jobs by state."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from models.jobs import counts
from models.jobs.catalogue import POOLS
from models.jobs.workers import WorkerRow, list_live
from models.platform.database import Connection

#: The counted states.
STATES = ("scheduled", "queued", "running", "waiting", "dead")


@dataclass(frozen=True, slots=True)
class PoolState:
    """The state of a pool.

    scheduled       jobs that are due later, among the next MAX_COUNTED of all pools
    more_scheduled  there are further ones, which are not counted
    oldest          seconds for which its longest waiting due job has waited for a worker
    """

    pool: str
    workers: int
    threads: int
    scheduled: int
    queued: int
    running: int
    waiting: int
    dead: int
    more_scheduled: bool
    oldest: float


def list_pool_states(connection: Connection) -> list[PoolState]:
    """Return the state of every pool."""
    by_state = Counter[tuple[str, str]]()
    for (queue, _, state), count in counts.count_unfinished(connection).items():
        by_state[queue, state] += count
    scheduled = counts.count_scheduled(connection)
    by_state.update({(queue, "scheduled"): count for queue, count in scheduled.items()})
    more_scheduled = sum(scheduled.values()) >= counts.MAX_COUNTED
    oldest, workers = counts.oldest_due(connection), list_live(connection)
    return [
        PoolState(
            pool,
            *_count_workers(workers, pool, queues),
            **{state: sum(by_state[queue, state] for queue in queues) for state in STATES},
            more_scheduled=more_scheduled,
            oldest=max((oldest.get(queue, 0.0) for queue in queues), default=0.0),
        )
        for pool, queues in POOLS.items()
    ]


def _count_workers(workers: Sequence[WorkerRow], pool: str, queues: Sequence[str]) -> tuple[int, int]:
    """Return the number of a pool's workers and of their threads for its queues."""
    serving = [worker for worker in workers if pool in worker.pools]
    return len(serving), sum(worker.threads_of(queues) for worker in serving)

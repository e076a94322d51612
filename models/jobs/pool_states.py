"""The state of each pool: its workers, and its jobs by state."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from models.jobs import counts
from models.jobs.catalogue import BATCH_SUFFIX, POOLS, batch_queue, pool_of
from models.jobs.workers import WorkerRow, list_live
from models.platform.database import Connection

#: The counted states.
STATES = ("scheduled", "queued", "running", "waiting", "dead")


@dataclass(frozen=True, slots=True)
class PoolState:
    """The state of a pool, or of one of its queues where its models have several.

    queue           the queue, if it is not the pool's own; its batch queue is counted with it
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
    queue: str | None = None


def list_pool_states(connection: Connection) -> list[PoolState]:
    """Return the state of every pool."""
    by_state = Counter[tuple[str, str]]()
    for (queue, _, state), count in counts.count_unfinished(connection).items():
        by_state[queue, state] += count
    scheduled = counts.count_scheduled(connection)
    by_state.update({(queue, "scheduled"): count for queue, count in scheduled.items()})
    more_scheduled = sum(scheduled.values()) >= counts.MAX_COUNTED
    oldest, workers = counts.oldest_due(connection), list_live(connection)
    known = {queue for queue, _ in by_state} | {queue for worker in workers for queue in worker.queues}

    def state_of(pool: str, queues: Sequence[str], queue: str | None = None) -> PoolState:
        return PoolState(
            pool,
            *_count_workers(workers, pool, queues, served_only=queue is not None),
            **{state: sum(by_state[each, state] for each in queues) for state in STATES},
            more_scheduled=more_scheduled,
            oldest=max((oldest.get(each, 0.0) for each in queues), default=0.0),
            queue=queue,
        )

    states = list[PoolState]()
    for pool, own in POOLS.items():
        others = sorted(queue for queue in known if pool_of(queue) == pool and queue not in own)
        states.append(state_of(pool, [*own, *others]))
        states += [state_of(pool, queues, queues[0]) for queues in _of_models(others)]
    return states


def _of_models(queues: Sequence[str]) -> list[Sequence[str]]:
    """Return the queues of each model, the interactive one first."""
    names = sorted({queue.removesuffix(BATCH_SUFFIX) for queue in queues})
    return [(name, batch_queue(name)) for name in names]


def _count_workers(
    workers: Sequence[WorkerRow], pool: str, queues: Sequence[str], *, served_only: bool
) -> tuple[int, int]:
    """Return the number of a pool's workers, or only of those that serve the queues, and of their threads for these."""
    serving = [worker for worker in workers if pool in worker.pools]
    if served_only:
        serving = [worker for worker in serving if set(queues) & set(worker.queues)]
    return len(serving), sum(worker.threads_of(queues) for worker in serving)

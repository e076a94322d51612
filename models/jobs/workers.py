"""The registered workers, and the release of the jobs of a dead one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from models.jobs.attempt_spans import record_killed
from models.jobs.leases import GIVE_BACK_OF_WORKER, release_of_stopping
from models.jobs.outbox import UNPUBLISH_QUEUE
from models.platform.database import Connection, Database, fetch_all
from models.platform.records import columns

#: Seconds after its last heartbeat for which a worker counts as live.
SILENCE_LIMIT = 30.0


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A row of `workers`. Where `queue_threads` is None, as in the previous version, all threads serve each queue."""

    name: str
    host: str
    pid: int
    pools: list[str]
    queues: list[str]
    threads: int
    queue_threads: dict[str, int] | None
    started_at: datetime
    seen_at: datetime

    def threads_of(self, queues: Sequence[str]) -> int:
        """Return the number of threads that serve some queues."""
        if self.queue_threads is None:
            return self.threads
        return sum(self.queue_threads.get(queue, 0) for queue in queues)


REGISTER = """
INSERT INTO workers (name, host, pid, pools, queues, threads, queue_threads, served, mean_seconds)
VALUES (%(name)s, %(host)s, %(pid)s, %(pools)s, %(queues)s, %(threads)s, %(queue_threads)s, %(served)s,
        %(mean_seconds)s)
ON CONFLICT (name) DO UPDATE SET
    host = excluded.host, pid = excluded.pid, pools = excluded.pools, queues = excluded.queues,
    threads = greatest(workers.threads, excluded.threads), queue_threads = excluded.queue_threads,
    served = excluded.served, mean_seconds = excluded.mean_seconds, seen_at = now()
"""


def register(
    connection: Connection,
    name: str,
    *,
    host: str,
    pid: int,
    pools: Sequence[str],
    threads: Mapping[str, int],
    served: Sequence[Mapping[str, Any]] = (),
    mean_seconds: Mapping[str, float] | None = None,
) -> None:
    """Register a worker, or renew its lease.

    threads       the number of usable threads by queue
    served        its models: `{"model", "endpoint", "queue", "slots"}`
    mean_seconds  of its last attempts, by queue
    """
    connection.execute(
        REGISTER,
        {
            "name": name,
            "host": host,
            "pid": pid,
            "pools": list(pools),
            "queues": list(threads),
            "threads": sum(threads.values()),
            "queue_threads": Jsonb(threads),
            "served": Jsonb(list(served)),
            "mean_seconds": Jsonb(dict(mean_seconds or {})),
        },
    )


def renew(connection: Connection, name: str) -> None:
    """Renew the lease of a registered worker, between two heartbeats."""
    connection.execute("UPDATE workers SET seen_at = now() WHERE name = %(name)s", {"name": name})


OTHERS_OF_HOST = "SELECT name, pid FROM workers WHERE host = %(host)s AND name <> %(name)s"

# Zero for each of its queues. Without an entry, all threads count.
FORGET_THREADS = """
UPDATE workers SET queue_threads = (SELECT jsonb_object_agg(queue, 0) FROM unnest(queues) AS queue)
WHERE name = ANY(%(names)s)
"""


def forget_threads_of_dead(connection: Connection, name: str, host: str, is_alive: Callable[[int], bool]) -> int:
    """Count no threads of the other workers of a host whose processes are dead. Returns how many workers.

    They would widen the fairness windows until their heartbeats are missed. A worker that lives, in a container with
    the same host name and other pids, counts again from its next heartbeat on.
    """
    others = fetch_all(connection, OTHERS_OF_HOST, {"host": host, "name": name})
    dead = [other["name"] for other in others if not is_alive(other["pid"])]
    if dead:
        connection.execute(FORGET_THREADS, {"names": dead})
    return len(dead)


def unregister(connection: Connection, name: str) -> None:
    """Remove a stopping worker's row, and put back the jobs that it still runs by their rows."""
    release_of_stopping(connection, name)
    connection.execute("DELETE FROM workers WHERE name = %(name)s", {"name": name})


LIVE = f"""
SELECT {columns(WorkerRow)} FROM workers
WHERE pid > 0 AND seen_at > now() - make_interval(secs => %(silence)s) ORDER BY pools, started_at
"""


def list_live(connection: Connection) -> list[WorkerRow]:
    """Return the workers with a recent heartbeat; not those of which only their jobs are known."""
    return [WorkerRow(**row) for row in fetch_all(connection, LIVE, {"silence": SILENCE_LIMIT})]


AGES = """
SELECT pool, coalesce(extract(epoch FROM now() - seen_at), 0)::float AS seconds
FROM workers CROSS JOIN LATERAL unnest(pools) AS pool WHERE pid > 0
"""


def heartbeat_ages(connection: Connection) -> list[tuple[str, float]]:
    """Return the pool and the seconds since the last heartbeat of each registered worker; of each of its pools."""
    return [(row["pool"], row["seconds"]) for row in fetch_all(connection, AGES)]


@dataclass(frozen=True, slots=True)
class ReleasedJobs:
    """How many jobs a dead worker was running, and the lanes of these and of those whose messages it may have had."""

    running: int
    lanes: frozenset[str]


OF_PROCESS = "SELECT name, queues FROM workers WHERE host = %(host)s AND pid = %(pid)s"
DELETE_OF_PROCESS = "DELETE FROM workers WHERE host = %(host)s AND pid = %(pid)s"


def release_jobs_of_dead_worker(database: Database, host: str, pid: int) -> ReleasedJobs:
    """Give back the jobs of a worker process that is known to be dead. Publish those of the lanes after this.

    The supervisor calls it, so that recovery needs no timer, also with a broker that does not redeliver by itself.
    """
    worker = {"host": host, "pid": pid}
    with database.connection() as connection:
        dead = fetch_all(connection, OF_PROCESS, worker)
        if not dead:
            return ReleasedJobs(0, frozenset())
        # It may have received messages that it did not claim before it died. In separate statements: together they
        # would lock jobs in no defined order.
        queues = [queue for each in dead for queue in each["queues"]]
        unclaimed = fetch_all(connection, UNPUBLISH_QUEUE, {"queues": queues})
        released = fetch_all(connection, GIVE_BACK_OF_WORKER, {"workers": [each["name"] for each in dead]})
        connection.execute(DELETE_OF_PROCESS, worker)
    record_killed(released)
    return ReleasedJobs(len(released), frozenset(row["lane"] for row in [*unclaimed, *released]))


def delete_silent(connection: Connection) -> None:
    """Delete the rows of workers without a heartbeat for ten times SILENCE_LIMIT."""
    connection.execute(
        "DELETE FROM workers WHERE seen_at < now() - make_interval(secs => %(silence)s)",
        {"silence": 10 * SILENCE_LIMIT},
    )

"""The registered workers, and the release of the jobs of a dead one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from models.jobs.attempts import GIVE_BACK_OF_WORKER
from models.platform.database import Connection, Database, fetch_all
from models.platform.records import columns

#: Seconds after its last heartbeat for which a worker counts as live.
SILENCE_LIMIT = 30.0


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A row of `workers`."""

    name: str
    host: str
    pid: int
    pools: list[str]
    queues: list[str]
    threads: int
    started_at: datetime
    seen_at: datetime


REGISTER = """
INSERT INTO workers (name, host, pid, pools, queues, threads)
VALUES (%(name)s, %(host)s, %(pid)s, %(pools)s, %(queues)s, %(threads)s)
ON CONFLICT (name) DO UPDATE SET seen_at = now()
"""


def register(
    connection: Connection,
    name: str,
    *,
    host: str,
    pid: int,
    pools: Sequence[str],
    queues: Sequence[str],
    threads: int,
) -> None:
    """Register a worker, or renew its heartbeat."""
    connection.execute(
        REGISTER,
        {"name": name, "host": host, "pid": pid, "pools": list(pools), "queues": list(queues), "threads": threads},
    )


def unregister(connection: Connection, name: str) -> None:
    """Remove a stopping worker's row."""
    connection.execute("DELETE FROM workers WHERE name = %(name)s", {"name": name})


LIVE = f"""
SELECT {columns(WorkerRow)} FROM workers
WHERE seen_at > now() - make_interval(secs => %(silence)s) ORDER BY pools, started_at
"""


def list_live(connection: Connection) -> list[WorkerRow]:
    """Return the workers with a recent heartbeat."""
    return [WorkerRow(**row) for row in fetch_all(connection, LIVE, {"silence": SILENCE_LIMIT})]


# The worker may have received messages that it did not claim before it died: publish the jobs of its queues again.
UNPUBLISH_UNCLAIMED = """
WITH published AS (
    SELECT id AS published_id FROM jobs
    WHERE state = 'queued' AND published_at IS NOT NULL AND queue = ANY(%(queues)s)
    ORDER BY id DESC FOR NO KEY UPDATE
)
UPDATE jobs SET published_at = NULL FROM published WHERE id = published_id
"""


def release_jobs_of_dead_worker(database: Database, host: str, pid: int) -> int:
    """Give back the jobs of a worker process that is known to be dead. Returns how many it was running.

    The supervisor calls it, so that recovery needs no timer, also with a broker that does not redeliver by itself.
    """
    with database.connection() as connection:
        worker = {"host": host, "pid": pid}
        dead = fetch_all(connection, "SELECT name, queues FROM workers WHERE host = %(host)s AND pid = %(pid)s", worker)
        if not dead:
            return 0
        # In separate statements: together they would lock jobs in no defined order.
        connection.execute(UNPUBLISH_UNCLAIMED, {"queues": [queue for each in dead for queue in each["queues"]]})
        released = connection.execute(GIVE_BACK_OF_WORKER, {"workers": [each["name"] for each in dead]})
        connection.execute("DELETE FROM workers WHERE host = %(host)s AND pid = %(pid)s", worker)
        return released.rowcount


def delete_silent(connection: Connection) -> None:
    """Delete the rows of workers without a heartbeat for ten times SILENCE_LIMIT."""
    connection.execute(
        "DELETE FROM workers WHERE seen_at < now() - make_interval(secs => %(silence)s)",
        {"silence": 10 * SILENCE_LIMIT},
    )

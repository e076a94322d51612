"""The workers that live: who they are, what they serve, and what to do with what a dead one held."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from models.jobs.attempts import GIVE_BACK_OF_WORKER
from models.platform.database import Connection, Database, fetch_all

#: Seconds without a sign of life after which a worker no longer counts.
SILENCE = 30.0


@dataclass(frozen=True, slots=True)
class Worker:
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
    """Say that a worker is ready to claim, or still lives."""
    connection.execute(
        REGISTER,
        {"name": name, "host": host, "pid": pid, "pools": list(pools), "queues": list(queues), "threads": threads},
    )


def unregister(connection: Connection, name: str) -> None:
    """Take a worker that leaves off the list."""
    connection.execute("DELETE FROM workers WHERE name = %(name)s", {"name": name})


LIVING = "SELECT * FROM workers WHERE seen_at > now() - make_interval(secs => %(silence)s) ORDER BY pools, started_at"


def list_live(connection: Connection) -> list[Worker]:
    """The workers that gave a sign of life lately."""
    return [Worker(**row) for row in fetch_all(connection, LIVING, {"silence": SILENCE})]


# A message may have died in the worker's hands before it was claimed: send those of its queues again.
UNPUBLISH_UNCLAIMED = """
WITH sent AS (
    SELECT id AS sent_id FROM jobs
    WHERE state = 'queued' AND published_at IS NOT NULL AND queue = ANY(%(queues)s)
    ORDER BY id DESC FOR NO KEY UPDATE
)
UPDATE jobs SET published_at = NULL FROM sent WHERE id = sent_id
"""


def release_jobs_of_dead_worker(database: Database, host: str, pid: int) -> int:
    """Give back at once what a worker that is known to be dead held. Returns how many jobs it ran.

    For a supervisor, so that recovery waits for no timer even where the broker has none to offer.
    """
    with database.connection() as connection:
        worker = {"host": host, "pid": pid}
        dead = fetch_all(connection, "SELECT name, queues FROM workers WHERE host = %(host)s AND pid = %(pid)s", worker)
        if not dead:
            return 0
        # Each statement by itself: together they would lock jobs in no order.
        connection.execute(UNPUBLISH_UNCLAIMED, {"queues": [queue for each in dead for queue in each["queues"]]})
        given = connection.execute(GIVE_BACK_OF_WORKER, {"workers": [each["name"] for each in dead]})
        connection.execute("DELETE FROM workers WHERE host = %(host)s AND pid = %(pid)s", worker)
        return given.rowcount


def delete_silent(connection: Connection) -> None:
    """Take those off the list that have been silent for long."""
    connection.execute(
        "DELETE FROM workers WHERE seen_at < now() - make_interval(secs => %(silence)s)", {"silence": 10 * SILENCE}
    )

"""Leases of web processes, so that the turns of a killed one do not run on without a client.

The job of a turn that is to be cancelled once its client disconnects names the web process of that client. If the
process is killed, it cannot notice the disconnect, so the scheduler abandons these turns when its lease has expired.
"""

from models.platform.database import Connection, fetch_all
from models.turns.abandoned_turns import GRACE

#: Seconds that a lease lasts, and seconds between two renewals.
LEASE = 15.0
RENEWAL = 3.0

#: The argument of a job that names the web process.
ARGUMENT = "web_process"

RENEW = """
INSERT INTO web_processes (name) VALUES (%(name)s)
ON CONFLICT (name) DO UPDATE SET seen_at = now()
"""


def renew(connection: Connection, name: str) -> None:
    """Begin or renew the lease of a process."""
    connection.execute(RENEW, {"name": name})


def end(connection: Connection, name: str) -> None:
    """End the lease of a process that stops: its clients have not disconnected, so its turns continue."""
    connection.execute("DELETE FROM web_processes WHERE name = %(name)s", {"name": name})


TAKE_DEAD = """
DELETE FROM web_processes WHERE seen_at <= now() - make_interval(secs => %(lease)s) RETURNING name
"""

# A client that follows a turn through another process keeps it: see `abandoned_turns.keep_followed`.
ABANDON_TURNS = """
INSERT INTO abandoned_turns (job_id, cancel_at)
SELECT id, now() + make_interval(secs => %(grace)s) FROM jobs
WHERE kind = 'turn.run' AND state IN ('scheduled', 'queued', 'running', 'waiting')
  AND arguments ->> 'web_process' = ANY(%(names)s)
FOR KEY SHARE
ON CONFLICT (job_id) DO NOTHING
"""


def abandon_turns_of_dead(connection: Connection, *, lease: float = LEASE) -> list[str]:
    """Abandon the turns of processes whose lease has expired. Returns the names of the processes.

    Call it in a transaction: a process whose lease is taken must not keep its turns.
    """
    names = [str(row["name"]) for row in fetch_all(connection, TAKE_DEAD, {"lease": lease})]
    if names:
        connection.execute(ABANDON_TURNS, {"names": names, "grace": GRACE})
    return names

"""Serial keys: jobs with the same key run one at a time, in the order of `sequence`.

All but the first unfinished job of a key are `blocked`, which keeps them out of the relay's index. A transaction that
inserts, ends or cancels such a job holds the key's lock.
"""

from models.platform.database import Connection, fetch_one

# Whether an unfinished job of the same serial key was inserted before a row of `jobs`.
EARLIER_UNFINISHED = """EXISTS (
    SELECT FROM jobs AS earlier
    WHERE earlier.serial_key = jobs.serial_key AND earlier.state IN ('scheduled', 'queued', 'running', 'waiting')
      AND (coalesce(earlier.sequence, 0), earlier.id) < (coalesce(jobs.sequence, 0), jobs.id))"""

# Serialises the transactions that insert, end or cancel jobs of a serial key. Taken before any row is locked.
LOCK_SERIAL_KEY = "SELECT pg_advisory_xact_lock(hashtextextended('serial ' || %(serial_key)s, 0))"


def lock_serial_key(connection: Connection, serial_key: str) -> None:
    """Lock a serial key until the transaction ends: no job of it is inserted, ended or cancelled meanwhile.

    Take it before the rows of jobs.
    """
    connection.execute(LOCK_SERIAL_KEY, {"serial_key": serial_key})


SERIAL_KEY = "SELECT serial_key FROM jobs WHERE id = %(id)s AND serial_key IS NOT NULL"


def lock_serial_key_of(connection: Connection, job_id: str) -> None:
    """Lock the serial key of a job, if it has one, until the transaction ends."""
    keyed = fetch_one(connection, SERIAL_KEY, {"id": job_id})
    if keyed is not None:
        lock_serial_key(connection, keyed["serial_key"])


# Assignments that put an ended job behind the unfinished ones of its serial key. It is the last in their order, too:
# otherwise each would wait for the other.
LAST_OF_SERIAL_KEY = """
    sequence = nextval('jobs_sequence'),
    blocked = EXISTS (SELECT FROM jobs AS other WHERE other.serial_key = jobs.serial_key
                      AND other.state IN ('scheduled', 'queued', 'running', 'waiting'))"""

# The first unfinished job of a serial key is not blocked.
UNBLOCK = """
UPDATE jobs SET blocked = false
WHERE blocked AND id = (
    SELECT id FROM jobs
    WHERE serial_key = %(serial_key)s AND state IN ('scheduled', 'queued', 'running', 'waiting')
    ORDER BY coalesce(sequence, 0), id LIMIT 1)
"""


def unblock_next(connection: Connection, serial_key: str) -> None:
    """Let the next job of a serial key run, after one ended in the caller's transaction, which holds the key's lock."""
    connection.execute(UNBLOCK, {"serial_key": serial_key})

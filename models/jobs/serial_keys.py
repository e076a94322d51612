"""Serial keys: jobs with the same key run one at a time, in the order of `sequence`.

All but the first unfinished job of a key are `blocked`, which keeps them out of the relay's index. A transaction that
inserts, ends or cancels such a job holds the key's lock.
"""

from collections.abc import Collection

from psycopg import Cursor
from psycopg.rows import DictRow

from models.platform.database import Connection, fetch_one
from models.platform.errors import PermanentFailure

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


# In the order of the locks' numbers, like a cancel.
LOCK_SERIAL_KEYS = """
SELECT pg_advisory_xact_lock(number) FROM (
    SELECT DISTINCT hashtextextended('serial ' || serial_key, 0) AS number
    FROM unnest(%(serial_keys)s::text[]) AS serial_key ORDER BY number) AS numbers
"""


def lock_serial_keys(connection: Connection, serial_keys: Collection[str]) -> None:
    """Lock several serial keys until the transaction ends; see `lock_serial_key`."""
    if serial_keys:
        connection.execute(LOCK_SERIAL_KEYS, {"serial_keys": list(serial_keys)})


SERIAL_KEY = "SELECT serial_key FROM jobs WHERE id = %(id)s AND serial_key IS NOT NULL"


def lock_serial_key_of(connection: Connection, job_id: str) -> None:
    """Lock the serial key of a job, if it has one, until the transaction ends."""
    keyed = fetch_one(connection, SERIAL_KEY, {"id": job_id})
    if keyed is not None:
        lock_serial_key(connection, keyed["serial_key"])


# An unfinished job with one of some serial keys among a job and those above it.
HELD_ABOVE = """
WITH RECURSIVE above AS (
    SELECT id, parent_id FROM jobs WHERE id = %(parent_id)s
    UNION
    SELECT jobs.id, jobs.parent_id FROM jobs JOIN above ON jobs.id = above.parent_id
)
SELECT id, serial_key FROM above JOIN jobs USING (id)
WHERE serial_key = ANY(%(serial_keys)s) AND finished_at IS NULL LIMIT 1
"""


def check_not_held_above(connection: Connection, serial_keys: Collection[str], parent_id: str) -> None:
    """Raise PermanentFailure if a child with one of the keys would wait for a job that waits for the child's end."""
    if not serial_keys:
        return
    held = fetch_one(connection, HELD_ABOVE, {"serial_keys": list(serial_keys), "parent_id": parent_id})
    if held is not None:
        message = f"A child of {parent_id} would wait for ever: {held['id']} has its serial key, {held['serial_key']}."
        raise PermanentFailure(message, code="serial_key_held")


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
RETURNING coalesce(lane, account_id) AS lane, state = 'queued' AS due
"""


def unblock_next(connection: Connection, serial_key: str) -> Cursor[DictRow]:
    """Let the next job of a serial key run, after one ended in the caller's transaction, which holds the key's lock.

    The cursor has the lane of the job, and whether it is due, if there is one.
    """
    return connection.execute(UNBLOCK, {"serial_key": serial_key})

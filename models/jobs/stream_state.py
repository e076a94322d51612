"""What the followers of a job's stream read from its row, and the repair of an end that they are beyond."""

from collections.abc import Mapping, Sequence

from models.jobs.serial_keys import LAST_OF_SERIAL_KEY, lock_serial_key_of
from models.platform.database import Connection, fetch_all, fetch_one

REWOUND_AT = "SELECT rewound_at FROM jobs WHERE id = %(id)s"
REWOUND_AT_MOVED = "SELECT rewound_at FROM ended_jobs WHERE id = %(id)s"


def read_rewound_at(connection: Connection, job_id: str) -> int | None:
    """Return the lowest sequence number from which on events of a job were written again, or None."""
    row = fetch_one(connection, REWOUND_AT, {"id": job_id}) or fetch_one(connection, REWOUND_AT_MOVED, {"id": job_id})
    return row["rewound_at"] if row else None


# By the primary keys of both tables.
STALE = """
SELECT id FROM unnest(%(ids)s::text[], %(positions)s::int[]) AS followed (followed_id, position)
JOIN jobs ON id = followed_id AND state = 'running'
WHERE rewound_at <= position
   OR position < (SELECT last_sequence FROM job_events WHERE job_id = id ORDER BY first_sequence DESC LIMIT 1)
"""


def stale_ids(connection: Connection, positions: Mapping[str, int]) -> Sequence[str]:
    """Return the running jobs whose archive is beyond a position in their streams, or which were rewound before it.

    positions  job id → sequence number
    """
    parameters = {"ids": list(positions), "positions": list(positions.values())}
    return [row["id"] for row in fetch_all(connection, STALE, parameters)]


# The last chunk of such a job is its ending alone.
REOPEN = f"""
WITH ending AS (
    SELECT job_id, first_sequence, last_sequence FROM job_events WHERE job_id = %(id)s
    ORDER BY first_sequence DESC LIMIT 1
), reopened AS (
    UPDATE jobs SET state = 'queued', finished_at = NULL, run_at = now(), published_at = NULL,
                    rewound_at = last_sequence, {LAST_OF_SERIAL_KEY}
    FROM ending
    WHERE id = job_id AND state = 'cancelled' AND attempt = 0 AND parent_id IS NULL
      AND first_sequence = last_sequence AND last_sequence < %(position)s
    RETURNING id
)
DELETE FROM job_events USING ending, reopened
WHERE job_events.job_id = reopened.id AND job_events.first_sequence = ending.first_sequence
RETURNING reopened.id
"""


def reopen_cancelled(connection: Connection, job_id: str, position: int) -> bool:
    """Queue a job again that was cancelled before any attempt although a follower has events of one.

    A failover has lost the claim of that attempt. The cancel then ended the job where its archive ended, below the
    follower's position, which would wait for ever. The next attempt finds the events in Redis and ends the job after
    them. Needs a transaction. Returns whether the job was queued.
    """
    lock_serial_key_of(connection, job_id)
    return fetch_one(connection, REOPEN, {"id": job_id, "position": position}) is not None


SELECT_UNFINISHED = """
SELECT id FROM jobs WHERE id = ANY(%(ids)s) AND state IN ('scheduled', 'queued', 'running', 'waiting')
"""


def ended_ids(connection: Connection, job_ids: Sequence[str]) -> set[str]:
    """Return those of the ids whose jobs have ended or do not exist."""
    return set(job_ids) - {row["id"] for row in fetch_all(connection, SELECT_UNFINISHED, {"ids": list(job_ids)})}

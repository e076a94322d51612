"""What the followers of a job's stream read from its row."""

from collections.abc import Mapping, Sequence

from models.platform.database import Connection, fetch_all, fetch_one


def read_rewound_at(connection: Connection, job_id: str) -> int | None:
    """Return the lowest sequence number from which on events of a job were written again, or None."""
    row = fetch_one(connection, "SELECT rewound_at FROM jobs WHERE id = %(id)s", {"id": job_id})
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

"""Turns that are still to be remembered. They are flagged when they start, and unflagged when their memories are
written.

One job remembers all turns of a user that have ended before it starts, each in its space.
"""

from collections.abc import Sequence
from datetime import datetime

from models.memory.spaces import SpaceKey
from models.platform.database import Connection, fetch_all, fetch_one
from models.turns.responses import SELECT, Response

OWNER = "SELECT account_id, user_id FROM responses WHERE job_id = %(job_id)s AND unremembered AND user_id IS NOT NULL"


def owner_of(connection: Connection, job_id: str) -> tuple[str, str] | None:
    """Return the account and the user of a job's turn if it is still to be remembered."""
    row = fetch_one(connection, OWNER, {"job_id": job_id})
    return (row["account_id"], row["user_id"]) if row else None


ENDED = f"""
{SELECT}
WHERE responses.account_id = %(account_id)s AND responses.user_id = %(user_id)s AND unremembered
  AND jobs.state IN ('completed', 'failed', 'cancelled', 'dead')
ORDER BY responses.id LIMIT %(limit)s
"""


def list_ended(connection: Connection, account_id: str, user_id: str, limit: int) -> list[Response]:
    """Return the first ended turns of a user that are still to be remembered, in the order in which they started."""
    parameters = {"account_id": account_id, "user_id": user_id, "limit": limit}
    return [Response(**row) for row in fetch_all(connection, ENDED, parameters)]


# A turn that was deleted has no row; one whose conversation was deleted has lost it.
MARK_REMEMBERED = """
UPDATE responses SET unremembered = false
WHERE id = ANY(%(ids)s) AND account_id = %(account_id)s AND unremembered
RETURNING id, conversation_id IS NOT NULL OR thread NOT LIKE 'conv\\_%%' AS remembered
"""


def mark_remembered(connection: Connection, account_id: str, ids: Sequence[str]) -> set[str]:
    """Unflag turns, and lock them until the transaction ends. Returns the ids of those that may be remembered."""
    rows = fetch_all(connection, MARK_REMEMBERED, {"ids": list(ids), "account_id": account_id})
    return {row["id"] for row in rows if row["remembered"]}


# The times of jobs are Postgres's, those of responses are of the web process's clock.
DROP = """
UPDATE responses SET unremembered = false
WHERE account_id = %(account_id)s AND user_id = %(user_id)s AND unremembered AND space = %(space)s
  AND NOT EXISTS (SELECT FROM jobs WHERE jobs.id = responses.job_id AND jobs.created_at > %(until)s)
"""


def drop(connection: Connection, key: SpaceKey, until: datetime) -> None:
    """Clear the flag `unremembered` of the turns of a space, unfinished ones included, that were created by a time."""
    connection.execute(DROP, {**key.parameters, "until": until})

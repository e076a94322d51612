"""Turns that are still to be remembered: they have a mark from their beginning, and lose it with their memories made.

A user's turns are remembered together: one job serves all that have ended before it begins.
"""

from collections.abc import Sequence

from models.platform.database import Connection, fetch_all, fetch_one
from models.turns.responses import Response

# The user whose ended turn is not remembered yet.
OWNER = "SELECT account_id, user_id FROM responses WHERE job_id = %(job_id)s AND unremembered AND user_id IS NOT NULL"


def owner_of(connection: Connection, job_id: str) -> tuple[str, str] | None:
    """Return the account and the user of a job's turn if it is still to be remembered."""
    row = fetch_one(connection, OWNER, {"job_id": job_id})
    return (row["account_id"], row["user_id"]) if row else None


ENDED = """
SELECT responses.*, jobs.state AS job_state, jobs.attempt AS job_attempt, jobs.error AS job_error, jobs.rewound_at
FROM responses JOIN jobs ON jobs.id = responses.job_id
WHERE responses.account_id = %(account_id)s AND responses.user_id = %(user_id)s AND unremembered
  AND jobs.state IN ('completed', 'failed', 'cancelled', 'dead')
ORDER BY responses.id LIMIT %(limit)s
"""


def list_ended(connection: Connection, account_id: str, user_id: str, limit: int) -> list[Response]:
    """The first of a user's turns that have ended and are to be remembered, in the order in which they were begun."""
    parameters = {"account_id": account_id, "user_id": user_id, "limit": limit}
    return [Response(**row) for row in fetch_all(connection, ENDED, parameters)]


# What is deleted meanwhile is not there, and what was said in a conversation that is gone has lost it.
SETTLE = """
UPDATE responses SET unremembered = false
WHERE id = ANY(%(ids)s) AND account_id = %(account_id)s AND unremembered
RETURNING id, conversation_id IS NOT NULL OR thread NOT LIKE 'conv\\_%%' AS stands
"""


def mark_remembered(connection: Connection, account_id: str, ids: Sequence[str]) -> set[str]:
    """Take the mark off turns; returns those that may be remembered. They stay until the transaction ends."""
    rows = fetch_all(connection, SETTLE, {"ids": list(ids), "account_id": account_id})
    return {row["id"] for row in rows if row["stands"]}

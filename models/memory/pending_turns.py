"""Turns that are still to be remembered: they have a mark from their beginning, and lose it with their memories made.

A user's turns are remembered together: one job serves all that have ended before it begins.
"""

from collections.abc import Sequence

from models.jobs.jobs import NewJob
from models.platform.database import Connection, all_of, one
from models.turns.responses import Response

KIND = "memory.remember"


def follow_up(response: Response) -> NewJob | None:
    """The job that follows a turn's end, unless another one of the user's waits; None where nothing is to be done."""
    return _remembering(response.account_id, response.user_id) if response.unremembered else None


# Whose a turn is that is still to be remembered.
OF_JOB = "SELECT account_id, user_id FROM responses WHERE job_id = %(job_id)s AND unremembered"


def left_by(connection: Connection, job_id: str) -> NewJob | None:
    """The same for the turn of a job that was cancelled before any worker came to end it."""
    row = one(connection, OF_JOB, {"job_id": job_id})
    return _remembering(row["account_id"], row["user_id"]) if row else None


def _remembering(account_id: str, user_id: str | None) -> NewJob | None:
    if user_id is None:
        return None
    serial_key = f"{KIND} {account_id} {user_id}"
    return NewJob(KIND, account_id, {"user_id": user_id}, serial_key=serial_key, gathers=True)


ENDED = """
SELECT responses.*, jobs.state AS job_state, jobs.attempt AS job_attempt, jobs.error AS job_error, jobs.rewound_at
FROM responses JOIN jobs ON jobs.id = responses.job_id
WHERE responses.account_id = %(account_id)s AND responses.user_id = %(user_id)s AND unremembered
  AND jobs.state IN ('completed', 'failed', 'cancelled', 'dead')
ORDER BY responses.id LIMIT %(limit)s
"""


def ended(connection: Connection, account_id: str, user_id: str, limit: int) -> list[Response]:
    """The first of a user's turns that have ended and are to be remembered, in the order in which they were begun."""
    parameters = {"account_id": account_id, "user_id": user_id, "limit": limit}
    return [Response(**row) for row in all_of(connection, ENDED, parameters)]


# What is deleted meanwhile is not there, and what was said in a conversation that is gone has lost it.
SETTLE = """
UPDATE responses SET unremembered = false
WHERE id = ANY(%(ids)s) AND account_id = %(account_id)s AND unremembered
RETURNING id, conversation_id IS NOT NULL OR thread NOT LIKE 'conv\\_%%' AS stands
"""


def settle(connection: Connection, account_id: str, ids: Sequence[str]) -> set[str]:
    """Take the mark off turns; returns those that may be remembered. They stay until the transaction ends."""
    rows = all_of(connection, SETTLE, {"ids": list(ids), "account_id": account_id})
    return {row["id"] for row in rows if row["stands"]}

"""When a turn could begin, from which on the target of the tier `priority` counts."""

from datetime import datetime

from models.platform.database import Connection, fetch_one
from models.turns.responses import Response

# The end of the turns before it in its conversation, or of the one that it continues, unless that is days ago.
ENDED_BEFORE = """
SELECT max(finished_at) AS ended_at FROM responses JOIN jobs ON jobs.id = job_id
WHERE responses.account_id = %(account_id)s
  AND (responses.id = %(previous_id)s OR conversation_id = %(conversation_id)s AND responses.id < %(id)s)
"""


def due_at(connection: Connection, response: Response) -> datetime:
    """Return when a turn could begin: at its creation, or after the one before it in its thread."""
    parameters = {
        "account_id": response.account_id,
        "previous_id": response.previous_id,
        "conversation_id": response.conversation_id,
        "id": response.id,
    }
    row = fetch_one(connection, ENDED_BEFORE, parameters)
    ended_at: datetime | None = row["ended_at"] if row else None
    return max(response.created_at, ended_at or response.created_at)

"""Delete turns that have ended, with their jobs and journals. Usage records are kept."""

from models.jobs import ended_jobs
from models.platform.database import Connection, fetch_all, fetch_one
from models.turns.responses import UNREAD_SECONDS, Response

# The second statement must see a turn that was continuing the response when the first one waited for its transaction.
LOCK = "SELECT FROM responses WHERE id = %(id)s AND account_id = %(account_id)s FOR UPDATE"
RELINK = """
UPDATE responses AS later SET previous_id = deleted.previous_id FROM responses AS deleted
WHERE later.previous_id = deleted.id AND deleted.id = %(id)s AND deleted.account_id = %(account_id)s
"""


def close_gap(connection: Connection, response: Response) -> None:
    """Let the turns that continue a response continue the one before it, in the transaction that deletes it."""
    parameters = {"id": response.id, "account_id": response.account_id}
    connection.execute(LOCK, parameters)
    connection.execute(RELINK, parameters)


# The journal's archive is deleted by cascade, the response by a trigger. The usage record is kept.
DELETE = """
DELETE FROM jobs USING responses
WHERE jobs.id = responses.job_id AND responses.id = %(id)s AND responses.account_id = %(account_id)s
  AND jobs.state IN ('completed', 'failed', 'cancelled', 'dead')
"""


MOVED_JOB = "SELECT job_id FROM responses WHERE id = %(id)s AND account_id = %(account_id)s"


def delete(connection: Connection, response_id: str, account_id: str) -> bool:
    """Delete an ended response with its journal. Returns whether it was deleted."""
    parameters = {"id": response_id, "account_id": account_id}
    if connection.execute(DELETE, parameters).rowcount > 0:
        return True
    row = fetch_one(connection, MOVED_JOB, parameters)
    return row is not None and ended_jobs.delete(connection, row["job_id"], account_id)


# Turns that are not stored and were not read. The time is counted from the end of the job. Turns of agents are deleted
# with the one that has asked them, which may read them later.
DELETE_EXPIRED = """
DELETE FROM jobs USING (
    SELECT job_id FROM responses JOIN jobs ON jobs.id = job_id
    WHERE expires_at < now() AND finished_at < now() - make_interval(secs => %(unread)s)
      AND jobs.state IN ('completed', 'failed', 'cancelled', 'dead') AND jobs.parent_id IS NULL
    ORDER BY job_id DESC LIMIT %(limit)s FOR UPDATE OF jobs SKIP LOCKED) AS expired
WHERE jobs.id = expired.job_id
RETURNING jobs.id
"""


def delete_expired(connection: Connection, limit: int = 500) -> list[str]:
    """Delete turns that are not stored and have expired. Returns the ids of their jobs."""
    return [row["id"] for row in fetch_all(connection, DELETE_EXPIRED, {"unread": UNREAD_SECONDS, "limit": limit})]

"""Turns whose client has disconnected and whose answer nobody can read later. They are cancelled after a grace period.

A row has the time at which its turn is cancelled, unless a client reads the turn or sends its request again before. A
turn with a connected client has no row. The scheduler cancels, so the web process that wrote the row may end.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from models.platform.database import Connection, fetch_all

#: Seconds before a turn is cancelled: longer than the pause of OpenAI's clients before their first two retries.
GRACE = 5.0

# A turn that has ended gets a row, too: a retry joins it. The lock lets a concurrent deletion of the job wait.
ABANDON = """
INSERT INTO abandoned_turns (job_id, cancel_at)
SELECT id, now() + make_interval(secs => %(grace)s) FROM jobs
WHERE id = ANY(%(ids)s) AND account_id = %(account_id)s
FOR KEY SHARE
ON CONFLICT (job_id) DO UPDATE SET cancel_at = excluded.cancel_at
"""


def abandon(connection: Connection, job_ids: Sequence[str], account_id: str, *, grace: float = GRACE) -> None:
    """Schedule the cancellation of turns of an account in `grace` seconds."""
    connection.execute(ABANDON, {"ids": list(job_ids), "account_id": account_id, "grace": grace})


KEEP = """
DELETE FROM abandoned_turns USING jobs
WHERE job_id = ANY(%(ids)s) AND jobs.id = job_id AND jobs.account_id = %(account_id)s
RETURNING job_id
"""


def keep(connection: Connection, job_ids: Sequence[str], account_id: str) -> set[str]:
    """Keep abandoned turns of an account from being cancelled. Returns the ids of those that were abandoned."""
    rows = fetch_all(connection, KEEP, {"ids": list(job_ids), "account_id": account_id})
    return {row["job_id"] for row in rows}


def list_abandoned(connection: Connection) -> dict[str, datetime]:
    """Return when each abandoned turn, of any account, is cancelled, by its job id."""
    rows = fetch_all(connection, "SELECT job_id, cancel_at FROM abandoned_turns")
    return {row["job_id"]: row["cancel_at"] for row in rows}


# A row that was written after it was listed stays: the follower has disconnected since.
KEEP_FOLLOWED = """
DELETE FROM abandoned_turns USING unnest(%(ids)s::text[], %(times)s::timestamptz[]) AS followed (id, listed_at)
WHERE job_id = followed.id AND cancel_at = listed_at
"""


def keep_followed(connection: Connection, followed: Mapping[str, datetime]) -> None:
    """Keep listed turns, of any account, since clients of this process follow them."""
    connection.execute(KEEP_FOLLOWED, {"ids": list(followed), "times": list(followed.values())})


# A row that a retry is deleting is skipped. A later retry waits for this transaction.
TAKE_DUE = """
WITH due AS (
    SELECT job_id AS due_id FROM abandoned_turns WHERE cancel_at <= now()
    ORDER BY cancel_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM abandoned_turns USING due, jobs WHERE job_id = due_id AND jobs.id = due_id
RETURNING job_id, jobs.account_id
"""


def take_due(connection: Connection, limit: int = 100) -> dict[str, list[str]]:
    """Delete the rows that are due, in the transaction that cancels their turns. Returns job ids by account."""
    by_account: dict[str, list[str]] = {}
    for row in fetch_all(connection, TAKE_DUE, {"limit": limit}):
        by_account.setdefault(row["account_id"], []).append(row["job_id"])
    return by_account


# A turn that is being cancelled has no answer.
OUTCOMES = """
SELECT id, CASE WHEN state = 'completed' THEN 'answered'
                WHEN state IN ('failed', 'dead') THEN 'failed'
                WHEN state = 'cancelled' OR cancel_requested_at IS NOT NULL THEN 'cancelled'
                ELSE 'open' END AS outcome
FROM jobs
WHERE id = ANY(%(ids)s) AND account_id = %(account_id)s AND created_at > now() - make_interval(secs => %(max_age)s)
"""

Outcome = Literal["open", "answered", "failed", "cancelled"]


def read_outcomes(
    connection: Connection, job_ids: Sequence[str], account_id: str, max_age: float
) -> dict[str, Outcome]:
    """Return the outcomes of those turns that exist, by job id.

    max_age  seconds since their creation
    """
    rows = fetch_all(connection, OUTCOMES, {"ids": list(job_ids), "account_id": account_id, "max_age": max_age})
    return {row["id"]: row["outcome"] for row in rows}

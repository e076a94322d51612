"""Forget what nobody will ask for: the platform's own ended jobs, what has expired, workers that are long silent, and
people who never proved their address, left nothing and did not come back.

Jobs of accounts stay, journal and all, until their owner deletes them.
"""

from models import claimants, email_tokens, files, firings, idempotency, invitations, memory_indexes, sessions
from models.attempts import Ending
from models.database import Connection, one
from models.jobs import PLATFORM_ACCOUNT
from models.object_store import Objects
from models.running import Attempt, plain_ending
from models.workers import forget_silent

#: Days that the platform's own ended jobs are kept, for operators to look at.
KEPT_DAYS = 7

#: Rows that one statement deletes at most, so that it never holds locks for long.
BATCH = 500

# A batch of ended jobs of the platform's own, and of those that end with the request that waits for them; the dead
# stay until an operator has dealt with them.
PRUNE = """
WITH old AS (
    SELECT id FROM jobs
    WHERE state IN ('completed', 'failed', 'cancelled')
      AND (account_id = %(account_id)s AND finished_at < now() - make_interval(days => %(days)s)
           OR kind = 'tokens.count' AND finished_at < now() - interval '1 hour')
    LIMIT %(batch)s
), gone AS (DELETE FROM jobs USING old WHERE jobs.id = old.id RETURNING jobs.id)
SELECT count(*) AS gone FROM gone
"""


def run(objects: Objects, attempt: Attempt) -> Ending:
    """Delete batch by batch. Each commits by itself, so a crash loses nothing and the next attempt goes on."""
    total = 0
    while True:
        attempt.check()
        with attempt.database.transaction() as connection:
            gone = _batch(connection)
        total += gone
        if gone < BATCH:
            break
        attempt.progress(total, note="ended jobs pruned")
    _expire_files(objects, attempt)
    _forget_claimants(attempt)
    with attempt.database.connection() as connection:
        for prune in (sessions.prune, idempotency.prune, email_tokens.prune, invitations.prune, firings.prune):
            while prune(connection, BATCH):
                attempt.check()
        forget_silent(connection)
        while memory_indexes.drop_orphans(connection):
            attempt.check()
    return plain_ending(attempt, "completed", result={"pruned": total})


def _batch(connection: Connection) -> int:
    row = one(connection, PRUNE, {"account_id": PLATFORM_ACCOUNT, "days": KEPT_DAYS, "batch": BATCH})
    return row["gone"] if row else 0


def _forget_claimants(attempt: Attempt) -> None:
    gone = BATCH
    while gone:
        attempt.check()
        with attempt.database.transaction() as connection:
            gone = claimants.prune(connection, BATCH)


def _expire_files(objects: Objects, attempt: Attempt) -> None:
    """The bytes first: a row without bytes can be deleted again, bytes without a row are never found."""
    while True:
        attempt.check()
        with attempt.database.connection() as connection:
            expired = files.expired(connection, BATCH)
        objects.delete(key for _, _, key in expired)
        with attempt.database.transaction() as connection:
            for file_id, account_id, _ in expired:
                files.delete(connection, file_id, account_id)
        if len(expired) < BATCH:
            return

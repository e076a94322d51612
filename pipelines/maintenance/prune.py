"""Forget what nobody will ask for: ended jobs that no response holds, what has ended or expired, workers that are long
silent, and people who never proved their address, left nothing and did not come back.

Turns stay, journal and all, until their owner deletes them.
"""

from models.access import api_keys, idempotency, sessions
from models.accounts import email_tokens, files, invitations, unverified_users
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import PLATFORM_ACCOUNT
from models.jobs.workers import delete_silent
from models.memory import meditation_changes, vector_indexes
from models.platform.object_store import ObjectStore
from models.schedules import firings

#: Days that the platform's own ended jobs are kept, for operators to look at.
KEPT_DAYS = 7

#: Rows that one statement deletes at most, so that it never holds locks for long.
BATCH = 500

#: What each forgets a batch of its own rows.
PRUNED = (
    sessions.prune,
    api_keys.prune,
    idempotency.prune,
    email_tokens.prune,
    invitations.prune,
    firings.prune,
    meditation_changes.prune,
)

#: Days that ended jobs of accounts are kept which no response holds: what they made stands elsewhere.
KEPT_DAYS_OF_ACCOUNTS = 30

# A batch of the platform's own; the dead stay until an operator has dealt with them, and with them who has started
# them: a job takes those along.
PRUNE_OWN = """
DELETE FROM jobs WHERE id IN (
    SELECT id FROM jobs
    WHERE account_id = %(account_id)s AND finished_at < now() - make_interval(days => %(days)s)
      AND state IN ('completed', 'failed', 'cancelled')
      AND NOT EXISTS (SELECT FROM jobs AS child WHERE child.parent_id = jobs.id) LIMIT %(batch)s)
"""

# A batch of those of accounts, in the words of the index. A meditation without an outcome tells its job's.
PRUNE = """
DELETE FROM jobs WHERE id IN (
    SELECT id FROM jobs
    WHERE kind <> 'turn.run' AND finished_at < now() - make_interval(days => %(days)s)
      AND state IN ('completed', 'failed', 'cancelled')
      AND NOT EXISTS (SELECT FROM jobs AS child WHERE child.parent_id = jobs.id)
      AND NOT EXISTS (SELECT FROM meditations WHERE job_id = jobs.id AND outcome IS NULL) LIMIT %(batch)s)
"""


def run(objects: ObjectStore, attempt: Attempt) -> Ending:
    """Delete batch by batch. Each commits by itself, so a crash loses nothing and the next attempt goes on."""
    total = _prune_jobs(attempt)
    _expire_files(objects, attempt)
    _forget_claimants(attempt)
    with attempt.database.connection() as connection:
        for prune in PRUNED:
            while prune(connection, BATCH):
                attempt.check()
        delete_silent(connection)
        while vector_indexes.drop_orphans(connection):
            attempt.check()
    return plain_ending(attempt, "completed", result={"pruned": total})


def _prune_jobs(attempt: Attempt) -> int:
    own = {"account_id": PLATFORM_ACCOUNT, "days": KEPT_DAYS}
    total = 0
    for statement, given in ((PRUNE_OWN, own), (PRUNE, {"days": KEPT_DAYS_OF_ACCOUNTS})):
        gone = BATCH
        while gone:
            attempt.check()
            with attempt.database.connection() as connection:
                gone = connection.execute(statement, {**given, "batch": BATCH}).rowcount
            total += gone
            attempt.report_progress(total, note="ended jobs pruned")
    return total


def _forget_claimants(attempt: Attempt) -> None:
    gone = BATCH
    while gone:
        attempt.check()
        with attempt.database.transaction() as connection:
            gone = unverified_users.prune(connection, BATCH)


def _expire_files(objects: ObjectStore, attempt: Attempt) -> None:
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

"""Delete old records: ended jobs, expired files, sessions, keys and tokens, unverified users without data.

Turns and their journals are kept until their owner deletes them. Of events of payment gateways only the payload is
deleted. The codes of vectors are completed too. Ended jobs in
`ended_jobs` are deleted by the week; those in `jobs`, which were never moved, one by one.
"""

from models.access import api_keys, idempotency, sessions
from models.accounts import email_tokens, emails, files, invitations, sent_emails, unverified_users, uploads
from models.agents import approvals, tool_lists
from models.batches import batches, lines
from models.billing import gateway_events
from models.delivery import events
from models.jobs import effects, ended_partitions
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.ended_jobs import ACCOUNT_JOB_DAYS, PLATFORM_JOB_DAYS
from models.jobs.jobs import PLATFORM_ACCOUNT
from models.jobs.workers import delete_silent
from models.memory import meditation_changes
from models.platform.object_store import ObjectStore
from models.reports import reports
from models.schedules import firings
from models.serving import served_models, spill_budget
from pipelines.delivery.mailers import FolderMailer
from pipelines.files.completion import delete_left_over
from pipelines.maintenance.expired_files import FILES_ONLY
from pipelines.memory import index_space
from pipelines.time_slice import TimeSlice

#: Rows that one statement deletes at most, so that it does not hold locks for long.
BATCH = 500

#: Functions that delete a batch of old rows each, and return its size.
PRUNE_FUNCTIONS = (
    sessions.prune,
    api_keys.prune,
    idempotency.prune,
    email_tokens.prune,
    sent_emails.prune,
    invitations.prune,
    firings.prune,
    effects.prune,
    meditation_changes.prune,
    gateway_events.prune,
    tool_lists.prune,
    approvals.prune,
    reports.prune,
    events.prune,
    events.reorder_restored,
    uploads.prune,
    lines.prune,
    batches.prune,
)

# A batch of the platform's jobs. Dead jobs stay until an operator has replayed or discarded them, and so do their
# parents, since deleting a job deletes its children.
PRUNE_PLATFORM_JOBS = """
DELETE FROM jobs WHERE id IN (
    SELECT id FROM jobs
    WHERE account_id = %(account_id)s AND finished_at < now() - make_interval(days => %(days)s)
      AND state IN ('completed', 'failed', 'cancelled')
      AND NOT EXISTS (SELECT FROM jobs AS child WHERE child.parent_id = jobs.id) LIMIT %(batch)s)
"""

# A batch of accounts' jobs; the conditions are those of the index. A meditation without an outcome shows its job's
# state.
PRUNE_ACCOUNT_JOBS = """
DELETE FROM jobs WHERE id IN (
    SELECT id FROM jobs
    WHERE kind <> 'turn.run' AND finished_at < now() - make_interval(days => %(days)s)
      AND state IN ('completed', 'failed', 'cancelled')
      AND NOT EXISTS (SELECT FROM jobs AS child WHERE child.parent_id = jobs.id)
      AND NOT EXISTS (SELECT FROM meditations WHERE job_id = jobs.id AND outcome IS NULL) LIMIT %(batch)s)
"""


def run(objects: ObjectStore, mailbox: FolderMailer | None, attempt: Attempt) -> Ending:
    """Delete in batches. Each commits by itself, so that the next attempt continues after a crash.

    Raises the reason to stop, and Released after a time slice.
    """
    time_slice = TimeSlice(attempt)
    files_deleted = _delete_expired_files(objects, attempt, time_slice)
    if attempt.job.arguments == FILES_ONLY:
        return plain_ending(attempt, "completed", result={"files": files_deleted})
    if mailbox is not None:
        mailbox.delete_old()
    total = _prune_jobs(attempt, time_slice)
    ended_partitions.drop_expired(attempt.database)
    for change in (unverified_users.prune, emails.leave_unverified_plan, *PRUNE_FUNCTIONS):
        time_slice.repeat(attempt.database, change, BATCH)
    with attempt.database.connection() as connection:
        delete_silent(connection)
        served_models.delete_forgotten(connection)
        spill_budget.prune(connection)
    index_space.sweep(attempt)
    return plain_ending(attempt, "completed", result={"pruned": total})


def _prune_jobs(attempt: Attempt, time_slice: TimeSlice) -> int:
    platform = {"account_id": PLATFORM_ACCOUNT, "days": PLATFORM_JOB_DAYS}
    total = 0
    for statement, parameters in ((PRUNE_PLATFORM_JOBS, platform), (PRUNE_ACCOUNT_JOBS, {"days": ACCOUNT_JOB_DAYS})):
        deleted = BATCH
        while deleted:
            time_slice.check()
            with attempt.database.connection() as connection:
                deleted = connection.execute(statement, {**parameters, "batch": BATCH}).rowcount
            total += deleted
            attempt.report_progress(total, note="ended jobs pruned")
    return total


def _delete_expired_files(objects: ObjectStore, attempt: Attempt, time_slice: TimeSlice) -> int:
    """Delete objects before their rows: a row without an object is found again, an object without a row is not."""
    deleted = 0
    while delete_left_over(attempt.database, objects):
        time_slice.check()
    while True:
        time_slice.check()
        with attempt.database.connection() as connection:
            expired = files.expired(connection, BATCH)
        objects.delete(key for file in expired for key in file.keys)
        with attempt.database.transaction() as connection:
            for file in expired:
                files.delete(connection, file.id, file.account_id)
        deleted += len(expired)
        if len(expired) < BATCH:
            return deleted

"""Enqueue meditations, one unfinished at a time for a user in an account."""

from datetime import datetime

from models.accounts.accounts import Caller
from models.accounts.plans import UNLIMITED, Limits
from models.jobs.jobs import NewJob, enqueue
from models.jobs.quota import check_unfinished_jobs
from models.memory import meditations
from models.memory.meditations import KIND, Meditation
from models.platform.database import Connection, Database
from models.platform.errors import MeditationEnding
from models.platform.ids import new_id


def enqueue_meditation(
    database: Database, caller: Caller, meditation_id: str, job_id: str, limits: Limits = UNLIMITED.limits
) -> Meditation:
    """Enqueue a meditation over the caller's memories, or return the unfinished one.

    The caller nudges the queue afterwards. Raises LimitExceeded and MeditationEnding.
    """
    with database.transaction() as connection:
        check_unfinished_jobs(connection, caller.account_id, limits)
        return enqueue_or_find(connection, caller.account_id, caller.user_id, meditation_id, job_id)


def enqueue_or_find(
    connection: Connection, account_id: str, user_id: str, meditation_id: str, job_id: str
) -> Meditation:
    """Enqueue a meditation in the caller's transaction, or return the unfinished one, run now if it is due later.

    Raises MeditationEnding.
    """
    inserted = insert_meditation(connection, account_id, user_id, meditation_id, job_id)
    meditation = meditations.unfinished(connection, account_id, user_id)
    if meditation is None:
        meditation = meditations.read(connection, meditation_id, account_id, user_id)
    if meditation is None:
        raise MeditationEnding("The previous meditation is ending. Retry the request.")
    if not inserted:
        meditations.run_now(connection, meditation.job_id, account_id)
    return meditation


def insert_meditation(
    connection: Connection,
    account_id: str,
    user_id: str,
    meditation_id: str | None = None,
    job_id: str | None = None,
    *,
    run_at: datetime | None = None,
    lane: str | None = None,
) -> bool:
    """Insert a meditation and its job, unless the user has an unfinished one. Returns whether it was inserted.

    lane  the serial key of the job: of one lane, one job runs at a time
    """
    meditation_id, job_id = meditation_id or new_id("med"), job_id or new_id("job")
    meditations.close_abandoned(connection, account_id, user_id)
    if not meditations.insert(connection, meditation_id, account_id=account_id, user_id=user_id, job_id=job_id):
        return False
    arguments = {"meditation_id": meditation_id, "user_id": user_id}
    job = NewJob(KIND, account_id, arguments, id=job_id, run_at=run_at, serial_key=lane, owner_id=user_id)
    return enqueue(connection, job)

"""Enqueue meditations, one unfinished at a time for a space."""

from datetime import datetime

from models.accounts.plans import UNLIMITED, Limits
from models.jobs.jobs import NewJob, enqueue
from models.jobs.quota import check_unfinished_jobs
from models.memory import meditations
from models.memory.meditations import KIND, Meditation
from models.memory.spaces import SpaceKey
from models.platform.database import Connection, Database
from models.platform.errors import MeditationEnding
from models.platform.ids import new_id


def enqueue_meditation(
    database: Database, key: SpaceKey, meditation_id: str, job_id: str, limits: Limits = UNLIMITED.limits
) -> Meditation:
    """Enqueue a meditation over a space, or return the unfinished one.

    The caller nudges the queue afterwards. Raises LimitExceeded and MeditationEnding.
    """
    with database.transaction() as connection:
        check_unfinished_jobs(connection, key.account_id, limits)
        return enqueue_or_find(connection, key, meditation_id, job_id)


def enqueue_or_find(connection: Connection, key: SpaceKey, meditation_id: str, job_id: str) -> Meditation:
    """Enqueue a meditation in the caller's transaction, or return the unfinished one, run now if it is due later.

    Raises MeditationEnding.
    """
    inserted = insert_meditation(connection, key, meditation_id, job_id)
    meditation = meditations.unfinished(connection, key)
    if meditation is None:
        meditation = meditations.read(connection, meditation_id, key)
    if meditation is None:
        raise MeditationEnding("The previous meditation is ending. Retry the request.")
    if not inserted:
        meditations.run_now(connection, meditation.job_id, key.account_id)
    return meditation


def insert_meditation(
    connection: Connection,
    key: SpaceKey,
    meditation_id: str | None = None,
    job_id: str | None = None,
    *,
    run_at: datetime | None = None,
    lane: str | None = None,
) -> bool:
    """Insert a meditation and its job, unless the space has an unfinished one. Returns whether it was inserted.

    lane  the serial key of the job: of one lane, one job runs at a time
    """
    meditation_id, job_id = meditation_id or new_id("med"), job_id or new_id("job")
    meditations.close_abandoned(connection, key)
    if not meditations.insert(connection, meditation_id, key, job_id=job_id):
        return False
    arguments = {"meditation_id": meditation_id, **key.arguments}
    job = NewJob(KIND, key.account_id, arguments, id=job_id, run_at=run_at, serial_key=lane, owner_id=key.user_id)
    return enqueue(connection, job)

"""`meditation.nightly`: enqueue meditations of the spaces that had turns since their last one, spread over the night.

Operators enqueue the same job for the spaces of some or all users, at once. A repeated attempt enqueues nothing twice:
spaces with an unfinished meditation, or one younger than the job, are skipped.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from models.accounts import audit
from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import NewJob, enqueue
from models.memory import meditations
from models.memory.spaces import SpaceKey
from models.platform.database import Database
from models.platform.settings import Settings
from pipelines.memory.meditation.meditation_jobs import insert_meditation

KIND = "meditation.nightly"

#: The time over which the meditations of a night are spread.
NIGHT = timedelta(hours=4)

#: Spaces read at a time.
PAGE = 500


def enqueue_scheduling(
    database: Database, caller: Caller, origin: RequestOrigin, job_id: str, user_ids: Sequence[str] | None
) -> None:
    """Enqueue this job for some users, or for all who have memories, on behalf of an operator.

    The caller nudges the queue afterwards.
    """
    arguments = {"all": True} if user_ids is None else {"user_ids": list(user_ids)}
    details = {"all": True} if user_ids is None else {"users": len(user_ids)}
    with database.transaction() as connection:
        enqueue(connection, NewJob(KIND, caller.account_id, arguments, id=job_id, owner_id=caller.user_id))
        audit.record(
            connection, "meditations.started", origin, account_id=caller.account_id, user_id=caller.user_id,
            target=job_id, details=details,
        )  # fmt: skip


def run(settings: Settings, attempt: Attempt) -> Ending:
    """Enqueue the meditations. Raises the reason to stop."""
    keys = list(_spaces(attempt))
    spread = timedelta() if _is_requested(attempt) else NIGHT
    started = 0
    for number, key in enumerate(keys):
        if number % PAGE == 0:
            attempt.report_progress(number, len(keys), note="meditations started")
        run_at = attempt.job.created_at + spread * (number / len(keys))
        lane = f"meditation lane {number % settings.nightly_meditations}"
        with attempt.database.transaction() as connection:
            started += insert_meditation(connection, key, run_at=run_at, lane=lane)
    return plain_ending(attempt, "completed", result={"started": started})


def _is_requested(attempt: Attempt) -> bool:
    """Return whether an operator enqueued the job, and not the timetable."""
    return bool(attempt.job.arguments.get("all") or attempt.job.arguments.get("user_ids"))


def _spaces(attempt: Attempt) -> Iterator[SpaceKey]:
    """Yield each space of the job."""
    last, requested, user_ids = SpaceKey("", "", ""), _is_requested(attempt), attempt.job.arguments.get("user_ids")
    while True:
        attempt.check()
        with attempt.database.connection() as connection:
            if requested:
                since = attempt.job.created_at
                page = meditations.spaces_without_meditation(connection, last, PAGE, user_ids, since=since)
            else:
                page = meditations.spaces_due(connection, last, PAGE)
        yield from page
        if len(page) < PAGE:
            return
        last = page[-1]

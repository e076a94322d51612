"""Rounds of meditations: `meditation.nightly` starts those of the users that had turns since their last one,
spread over the night, a few at once.

Also what operators start: for some users, or for all, at once. Doing it again starts nothing twice: who has a
meditation that is unfinished, or younger than the job, is passed over.
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
from models.platform.database import Database
from models.platform.settings import Settings
from pipelines.memory.meditation.meditation_jobs import insert_meditation

KIND = "meditation.nightly"

#: How long the night is.
NIGHT = timedelta(hours=4)

#: Users that are looked up at a time.
PAGE = 500


def enqueue_scheduling(
    database: Database, caller: Caller, origin: RequestOrigin, job_id: str, user_ids: Sequence[str] | None
) -> None:
    """Begin a round for some users, or for all who have memories; an operator's. Tell the queue afterwards."""
    arguments = {"all": True} if user_ids is None else {"user_ids": list(user_ids)}
    details = {"all": True} if user_ids is None else {"users": len(user_ids)}
    with database.transaction() as connection:
        enqueue(connection, NewJob(KIND, caller.account_id, arguments, id=job_id))
        audit.record(
            connection, "meditations.started", origin, account_id=caller.account_id, user_id=caller.user_id,
            target=job_id, details=details,
        )  # fmt: skip


def run(settings: Settings, attempt: Attempt) -> Ending:
    """Start the meditations. Raises the reason to stop."""
    found = list(_whom(attempt))
    spread = timedelta() if _asked_for(attempt) else NIGHT
    began = 0
    for number, (account_id, user_id) in enumerate(found):
        if number % PAGE == 0:
            attempt.report_progress(number, len(found), note="meditations started")
        run_at = attempt.job.created_at + spread * (number / len(found))
        lane = f"meditation lane {number % settings.nightly_meditations}"
        with attempt.database.transaction() as connection:
            began += insert_meditation(connection, account_id, user_id, run_at=run_at, lane=lane)
    return plain_ending(attempt, "completed", result={"started": began})


def _asked_for(attempt: Attempt) -> bool:
    return bool(attempt.job.arguments.get("all") or attempt.job.arguments.get("user_ids"))


def _whom(attempt: Attempt) -> Iterator[tuple[str, str]]:
    """(account, user) of all who are meant."""
    last, asked_for, user_ids = ("", ""), _asked_for(attempt), attempt.job.arguments.get("user_ids")
    while True:
        attempt.check()
        with attempt.database.connection() as connection:
            if asked_for:
                found = meditations.users_with_memories(connection, last, PAGE, user_ids, since=attempt.job.created_at)
            else:
                found = meditations.users_due(connection, last, PAGE)
        yield from found
        if len(found) < PAGE:
            return
        last = found[-1]

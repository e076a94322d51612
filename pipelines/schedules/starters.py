"""What a schedule may start. A kind of work that users may schedule needs a line here; the platform's own timetable
needs none: what is named there is enqueued as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from models.access.auth_context import AuthContext
from models.jobs.cancellation import Cancellation
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.jobs.quota import check_unfinished_jobs
from models.journal.events import Event
from models.platform.database import Connection
from models.platform.ids import new_id
from models.platform.settings import Settings
from models.schedules.schedules import Schedule
from pipelines.memory.meditation.meditation_jobs import enqueue_or_find
from pipelines.schedules import turns


@dataclass(frozen=True, slots=True)
class StartedWork:
    """What a firing began; the queue is to be told once it is committed.

    opening      what the job's journal begins with
    interrupted  jobs that were stopped to make way for it
    """

    job_id: str
    opening_events: Sequence[Event] = ()
    interrupted: Cancellation | None = None


class Starter(Protocol):
    """Starts a kind of work in the transaction of its firing."""

    def __call__(
        self, connection: Connection, schedule: Schedule, standing: AuthContext, settings: Settings
    ) -> StartedWork:
        """Enqueue the job for whom the schedule acts. Raises RequestError where they may not have it now."""


def start_turn(connection: Connection, schedule: Schedule, standing: AuthContext, settings: Settings) -> StartedWork:
    """A turn, as `POST /v1/responses` would begin it."""
    started = turns.start(connection, schedule.plan, standing, settings)
    return StartedWork(started.response.job_id, started.opening_events, started.interrupted)


def start_meditation(
    connection: Connection, schedule: Schedule, standing: AuthContext, settings: Settings
) -> StartedWork:
    """A meditation over the memories of whom the schedule acts for; the one that is unfinished will do."""
    caller = standing.caller
    check_unfinished_jobs(connection, caller.account_id, standing.limits)
    return StartedWork(
        enqueue_or_find(connection, caller.account_id, caller.user_id, new_id("med"), new_id("job")).job_id
    )


#: Kind of work → what starts it for a user.
STARTERS: Mapping[str, Starter] = {
    "turn": start_turn,
    "meditation": start_meditation,
}


def start(connection: Connection, schedule: Schedule, standing: AuthContext | None, settings: Settings) -> StartedWork:
    """Begin what the schedule is for. Raises RequestError."""
    if standing is not None:
        return STARTERS[schedule.kind](connection, schedule, standing, settings)
    job = NewJob(schedule.kind, PLATFORM_ACCOUNT)
    enqueue(connection, job)
    return StartedWork(job.id)

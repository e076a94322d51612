"""Start the work of a schedule.

Each kind of work that users may schedule has an entry in STARTERS. The platform's timetable needs none: its kinds are
kinds of jobs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from models.access.auth_context import AuthContext
from models.jobs.cancellation import Cancellation
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.jobs.quota import check_unfinished_jobs
from models.journal.events import Event
from models.memory.spaces import SpaceKey
from models.platform.database import Connection
from models.platform.ids import new_id
from models.platform.settings import Settings
from models.schedules.schedules import Schedule
from pipelines.memory.meditation.meditation_jobs import enqueue_or_find
from pipelines.reporting.enqueue_report import enqueue_operator_report, enqueue_report
from pipelines.reporting.requested_report import RequestedReport
from pipelines.schedules import turns


@dataclass(frozen=True, slots=True)
class StartedWork:
    """Work that a firing started; announce it to the queue after the commit.

    account_id      owner of the job
    opening_events  the first events of the job's journal
    interrupted     the jobs that were cancelled in favour of this one
    """

    job_id: str
    account_id: str
    opening_events: Sequence[Event] = ()
    interrupted: Cancellation | None = None


class Starter(Protocol):
    """Starts a kind of work in the transaction of its firing."""

    def __call__(
        self,
        connection: Connection,
        schedule: Schedule,
        auth_context: AuthContext,
        settings: Settings,
        fire_time: datetime,
    ) -> StartedWork:
        """Enqueue the job for the schedule's user. Raises RequestError where their limits do not permit it."""


def start_turn(
    connection: Connection, schedule: Schedule, auth_context: AuthContext, settings: Settings, fire_time: datetime
) -> StartedWork:
    """Start a turn, as `POST /v1/responses` does."""
    started = turns.start(connection, schedule.plan, auth_context, settings)
    return StartedWork(
        started.response.job_id, auth_context.caller.account_id, started.opening_events, started.interrupted
    )


def start_meditation(
    connection: Connection, schedule: Schedule, auth_context: AuthContext, settings: Settings, fire_time: datetime
) -> StartedWork:
    """Start a meditation over the user's memories, or those of the end user in the plan, unless one is unfinished."""
    caller = auth_context.caller
    check_unfinished_jobs(connection, caller.account_id, auth_context.limits)
    key = SpaceKey(caller.account_id, caller.user_id, schedule.plan.get("space", ""))
    meditation = enqueue_or_find(connection, key, new_id("med"), new_id("job"))
    return StartedWork(meditation.job_id, caller.account_id)


def start_report(
    connection: Connection, schedule: Schedule, auth_context: AuthContext, settings: Settings, fire_time: datetime
) -> StartedWork:
    """Start a report, as `POST /v1/reports` does, of the range before the time for which the schedule fires."""
    caller, job_id = auth_context.caller, new_id("job")
    enqueue_report(
        connection, _requested_report(schedule), caller, auth_context.limits, fire_time,
        report_id=new_id("report"), job_id=job_id, asked=schedule.asked["report"], schedule_id=schedule.id,
    )  # fmt: skip
    return StartedWork(job_id, caller.account_id)


def start_operator_report(
    connection: Connection, schedule: Schedule, auth_context: AuthContext, settings: Settings, fire_time: datetime
) -> StartedWork:
    """Start a report across accounts, as `POST /admin/reports` does, if the user is an operator now."""
    job_id = new_id("job")
    enqueue_operator_report(
        connection, _requested_report(schedule), auth_context.caller, fire_time,
        report_id=new_id("report"), job_id=job_id, asked=schedule.asked["report"], schedule_id=schedule.id,
    )  # fmt: skip
    return StartedWork(job_id, PLATFORM_ACCOUNT)


def _requested_report(schedule: Schedule) -> RequestedReport:
    """Return the report of a schedule, in its time zone unless the request names another one."""
    requested = RequestedReport(**schedule.plan)
    if "time_zone" in schedule.asked["report"]:
        return requested
    return replace(requested, time_zone=schedule.trigger.get("time_zone", requested.time_zone))


#: Kind of work → its starter.
STARTERS: Mapping[str, Starter] = {
    "turn": start_turn,
    "meditation": start_meditation,
    "report": start_report,
    "operator_report": start_operator_report,
}


def start(
    connection: Connection,
    schedule: Schedule,
    auth_context: AuthContext | None,
    settings: Settings,
    fire_time: datetime,
) -> StartedWork:
    """Start the schedule's work for a time; without `auth_context` it is one of the platform's. Raises RequestError."""
    if auth_context is not None:
        return STARTERS[schedule.kind](connection, schedule, auth_context, settings, fire_time)
    job = NewJob(schedule.kind, PLATFORM_ACCOUNT)
    enqueue(connection, job)
    return StartedWork(job.id, PLATFORM_ACCOUNT)

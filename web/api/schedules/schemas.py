"""Request and response schemas of `/v1/schedules`."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, Tag
from typing_extensions import TypedDict

from models.jobs.jobs import JobState
from models.schedules import firings
from models.schedules.firings import Firing
from models.schedules.schedules import IfMissed, Schedule, ScheduleStatus
from pipelines.requests.turn_request import CreateResponse
from pipelines.requests.validation import RequestBody, branch, discriminate_by_type
from pipelines.schedules.triggers import next_fire_times, trigger_from_json
from web.api.reports.schemas import CreateReport
from web.api.requested_space import SpaceName
from web.http.timestamps import UnixTime, to_unix

#: The number of next fire times in a schedule object.
FIRE_TIMES_SHOWN = 5

#: The default of `grace_seconds`: how late a firing may be.
DEFAULT_GRACE_SECONDS = 60

ScheduleName = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$")
]
GraceSeconds = Annotated[int, Field(ge=1, le=86_400)]


class CronTrigger(RequestBody):
    """Fires by a crontab expression of five fields, in the local time of an IANA time zone."""

    type: Literal["cron"]
    expression: str = Field(min_length=1, max_length=200)
    time_zone: str = Field("UTC", max_length=100)


class IntervalTrigger(RequestBody):
    """Fires every `seconds`. `start_at`, in Unix seconds, is one of the fire times; no time is before it."""

    type: Literal["interval"]
    seconds: int = Field(ge=60, le=366 * 86_400)
    start_at: UnixTime | None = None


class OnceTrigger(RequestBody):
    """Fires once. `at` is in Unix seconds."""

    type: Literal["once"]
    at: UnixTime


Trigger = Annotated[
    Annotated[CronTrigger, Tag(branch("cron"))]
    | Annotated[IntervalTrigger, Tag(branch("interval"))]
    | Annotated[OnceTrigger, Tag(branch("once"))],
    discriminate_by_type("cron", "interval", "once"),
]


class Work(RequestBody):
    """The work to start. For the kind `turn`, `request` is the body of `POST /v1/responses`; for the kind `meditation`,
    `space` names the end user whose memories it consolidates; for the kind `report`, `report` is the body of
    `POST /v1/reports`, with a `range` before the time for which the schedule fires; for the kind `operator_report`
    it is that of `POST /admin/reports`.
    """

    kind: Annotated[str, Field(min_length=1, max_length=100)]
    request: CreateResponse | None = None
    space: SpaceName | None = None
    report: CreateReport | None = None


class CreateSchedule(RequestBody):
    """The body of `POST /v1/schedules`."""

    name: ScheduleName
    trigger: Trigger
    work: Work
    if_missed: IfMissed = "run_once"
    grace_seconds: GraceSeconds = DEFAULT_GRACE_SECONDS
    paused: bool = False


class UpdateSchedule(RequestBody):
    """The body of `PATCH /v1/schedules/{id}`. Omitted fields stay unchanged."""

    name: ScheduleName | None = None
    trigger: Trigger | None = None
    work: Work | None = None
    if_missed: IfMissed | None = None
    grace_seconds: GraceSeconds | None = None
    paused: bool | None = None


class WorkObject(TypedDict):
    """The work that a schedule starts."""

    kind: str
    request: dict[str, Any] | None
    space: str | None
    report: dict[str, Any] | None


class FiringError(TypedDict):
    """Why a firing started no job."""

    code: str
    message: str


class FiringObject(TypedDict):
    """A firing. `fire_time` is the scheduled time, `fired_at` the actual one; times are in Unix seconds."""

    id: str
    object: Literal["schedule.firing"]
    schedule_id: str
    status: firings.FiringStatus
    fire_time: int
    fired_at: int
    missed_since: int | None
    job_id: str | None
    job_state: JobState | None
    response_id: str | None
    error: FiringError | None


class ScheduleObject(TypedDict):
    """A schedule. Times are in Unix seconds."""

    id: str
    object: Literal["schedule"]
    name: str
    status: ScheduleStatus
    paused: bool
    trigger: dict[str, Any]
    work: WorkObject
    if_missed: IfMissed
    grace_seconds: int
    user_id: str | None
    next_fire_times: list[int]
    last_firing: FiringObject | None
    created_at: int
    updated_at: int


class ScheduleDeleted(TypedDict):
    """A deleted schedule."""

    id: str
    object: Literal["schedule.deleted"]
    deleted: Literal[True]


def schedule_object(schedule: Schedule) -> ScheduleObject:
    """Convert a schedule to its API object."""
    fire_times = next_fire_times(trigger_from_json(schedule.trigger), schedule.next_fire_at, FIRE_TIMES_SHOWN)
    return {
        "id": schedule.id,
        "object": "schedule",
        "name": schedule.name,
        "status": schedule.status,
        "paused": schedule.paused_at is not None,
        "trigger": _trigger_object(schedule.trigger),
        "work": _work_object(schedule),
        "if_missed": schedule.if_missed,
        "grace_seconds": schedule.grace_seconds,
        "user_id": schedule.user_id,
        "next_fire_times": [int(time.timestamp()) for time in fire_times],
        "last_firing": firing_object(schedule.last) if schedule.last else None,
        "created_at": int(schedule.created_at.timestamp()),
        "updated_at": int(schedule.updated_at.timestamp()),
    }


def _work_object(schedule: Schedule) -> WorkObject:
    asked = schedule.asked
    return {
        "kind": schedule.kind,
        "request": asked.get("request"),
        "space": asked.get("space"),
        "report": asked.get("report"),
    }


def firing_object(firing: Firing) -> FiringObject:
    """Convert a firing to its API object."""
    return {
        "id": firing.id,
        "object": "schedule.firing",
        "schedule_id": firing.schedule_id,
        "status": firing.status,
        "fire_time": int(firing.fire_time.timestamp()),
        "fired_at": int(firing.fired_at.timestamp()),
        "missed_since": to_unix(firing.missed_since),
        "job_id": firing.job_id,
        "job_state": firing.job_state,
        "response_id": firing.response_id,
        "error": {"code": firing.error["code"], "message": firing.error["message"]} if firing.error else None,
    }


def _trigger_object(trigger: dict[str, Any]) -> dict[str, Any]:
    return {"start_at" if name == "start" else name: value for name, value in trigger.items()}

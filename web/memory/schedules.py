"""`/v1/schedules`: what users want to happen at some time, or again and again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, StringConstraints, Tag
from starlette.responses import Response
from typing_extensions import TypedDict

from models import firings, schedules
from models.database import Connection
from models.errors import InvalidRequest, NotFound, TooLarge
from models.firings import Firing
from models.jobs import State
from models.schedules import IfMissed, Schedule, Status
from pipelines.schedules import cron, keeping, turns
from pipelines.schedules.keeping import Changes, NewSchedule, Work
from pipelines.schedules.kinds import STARTERS
from pipelines.schedules.triggers import Cron, Interval, Once, loaded, next_times
from web.http import bodies
from web.http.answers import json_answer
from web.http.moments import Moment, moment, seconds
from web.http.paging import Listing, paged
from web.http.validation import Body, by_type, cut, parse_query, tag
from web.routing import Call
from web.turns.models import DEFAULT
from web.turns.requests import CreateResponse, new_turn

#: Times that an answer foretells.
FORETOLD = 5

#: Seconds that a firing may be late unless its schedule says otherwise.
GRACE = 60

#: Ten years, in seconds: the furthest that a start or a single time may lie ahead.
FURTHEST = 10 * 366 * 86_400

#: Bytes of a turn's request as JSON: a list shows a hundred of them.
LARGEST = 262_144

Title = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$")]
Grace = Annotated[int, Field(ge=1, le=86_400)]


class CronTrigger(Body):
    """By a crontab line of five fields, by the clocks of a time zone."""

    type: Literal["cron"]
    expression: str = Field(min_length=9, max_length=200)
    time_zone: str = Field("UTC", max_length=100)


class IntervalTrigger(Body):
    """Every so many seconds; `start_at`, in Unix seconds, is one of the times, and the first if it lies ahead."""

    type: Literal["interval"]
    seconds: int = Field(ge=60, le=366 * 86_400)
    start_at: Moment | None = None


class OnceTrigger(Body):
    """At one time, in Unix seconds."""

    type: Literal["once"]
    at: Moment


Trigger = Annotated[
    Annotated[CronTrigger, Tag(tag("cron"))]
    | Annotated[IntervalTrigger, Tag(tag("interval"))]
    | Annotated[OnceTrigger, Tag(tag("once"))],
    by_type("cron", "interval", "once"),
]


class WorkBody(Body):
    """What is to happen: for a turn, `request` is the body of `POST /v1/responses`."""

    kind: Annotated[str, Field(min_length=1, max_length=100)]
    request: CreateResponse | None = None


class CreateSchedule(Body):
    """The body of `POST /v1/schedules`."""

    name: Title
    trigger: Trigger
    work: WorkBody
    if_missed: IfMissed = "run_once"
    grace_seconds: Grace = GRACE
    paused: bool = False


class ChangeSchedule(Body):
    """The body of `PATCH /v1/schedules/{id}`; what is left out stays."""

    name: Title | None = None
    trigger: Trigger | None = None
    work: WorkBody | None = None
    if_missed: IfMissed | None = None
    grace_seconds: Grace | None = None
    paused: bool | None = None


class WorkObject(TypedDict):
    """What happens."""

    kind: str
    request: dict[str, Any] | None


class FiringError(TypedDict):
    """Why nothing was started."""

    code: str
    message: str


class FiringObject(TypedDict):
    """A time at which a schedule fired, or was to."""

    id: str
    object: Literal["schedule.firing"]
    schedule_id: str
    status: firings.Status
    fire_time: int
    fired_at: int
    missed_since: int | None
    job_id: str | None
    job_state: State | None
    response_id: str | None
    error: FiringError | None


class ScheduleObject(TypedDict):
    """A schedule."""

    id: str
    object: Literal["schedule"]
    name: str
    status: Status
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
    """A schedule is forgotten."""

    id: str
    object: Literal["schedule.deleted"]
    deleted: Literal[True]


def create(call: Call) -> Response:
    """`POST /v1/schedules`: let a turn happen at some time, or again and again, in the caller's name."""
    body = bodies.parse(call.body, CreateSchedule)
    new = NewSchedule(
        name=body.name,
        trigger=_trigger(call, body.trigger),
        work=_work(call, body.work),
        if_missed=body.if_missed,
        grace_seconds=body.grace_seconds,
        paused=body.paused,
    )
    made = keeping.create(call.platform.database, call.caller, new, call.new_id("sched"))
    return json_answer(schedule_object(made), 201)


def list_schedules(call: Call) -> Response:
    """`GET /v1/schedules`: the caller's schedules, newest first; for an admin the account's."""
    query = parse_query(call.query, Listing)
    user_id = keeping.visible(call.caller)
    with call.platform.database.connection() as connection:
        found = schedules.list_schedules(
            connection, call.caller.account_id, user_id=user_id, after=query.after, limit=query.wanted
        )
    return paged(found, query.limit, schedule_object)


def read(call: Call) -> Response:
    """`GET /v1/schedules/{id}`: with its next times and its last firing."""
    with call.platform.database.connection() as connection:
        return json_answer(schedule_object(keeping.find(connection, call.caller, call.path["schedule_id"])))


def change(call: Call) -> Response:
    """`PATCH /v1/schedules/{id}`: other words, times or work, by who it acts for. A new trigger counts from now."""
    body = bodies.parse(call.body, ChangeSchedule)
    changes = Changes(
        name=body.name,
        trigger=_trigger(call, body.trigger) if body.trigger else None,
        work=_work(call, body.work) if body.work else None,
        if_missed=body.if_missed,
        grace_seconds=body.grace_seconds,
        paused=body.paused,
    )
    changed = keeping.change(call.platform.database, call.caller, call.path["schedule_id"], changes)
    return json_answer(schedule_object(changed))


def pause(call: Call) -> Response:
    """`POST /v1/schedules/{id}/pause`: it does not fire until it is resumed."""
    paused = keeping.pause(call.platform.database, call.caller, call.path["schedule_id"], paused=True)
    return json_answer(schedule_object(paused))


def resume(call: Call) -> Response:
    """`POST /v1/schedules/{id}/resume`: it fires at its next time; times while it was paused are not made up for."""
    resumed = keeping.pause(call.platform.database, call.caller, call.path["schedule_id"], paused=False)
    return json_answer(schedule_object(resumed))


def delete(call: Call) -> Response:
    """`DELETE /v1/schedules/{id}`: forget it and its history; jobs that it has started go on."""
    keeping.delete(call.platform.database, call.caller, call.path["schedule_id"])
    deleted: ScheduleDeleted = {"id": call.path["schedule_id"], "object": "schedule.deleted", "deleted": True}
    return json_answer(deleted)


def list_firings(call: Call) -> Response:
    """`GET /v1/schedules/{id}/firings`: when it fired and what came of it, newest first, for the last 90 days."""
    query = parse_query(call.query, Listing)
    with call.platform.database.connection() as connection:
        schedule = keeping.find(connection, call.caller, call.path["schedule_id"])
        found = firings.list_firings(
            connection, schedule.id, call.caller.account_id, after=query.after, limit=query.wanted
        )
    return paged(found, query.limit, firing_object)


def schedule_object(schedule: Schedule) -> ScheduleObject:
    """A schedule as its owner sees it."""
    foretold = next_times(loaded(schedule.trigger), schedule.next_fire_at, FORETOLD)
    return {
        "id": schedule.id,
        "object": "schedule",
        "name": schedule.name,
        "status": schedule.status,
        "paused": schedule.paused_at is not None,
        "trigger": _shown(schedule.trigger),
        "work": {"kind": schedule.kind, "request": schedule.asked.get("request")},
        "if_missed": schedule.if_missed,
        "grace_seconds": schedule.grace_seconds,
        "user_id": schedule.user_id,
        "next_fire_times": [int(time.timestamp()) for time in foretold],
        "last_firing": firing_object(schedule.last) if schedule.last else None,
        "created_at": int(schedule.created_at.timestamp()),
        "updated_at": int(schedule.updated_at.timestamp()),
    }


def firing_object(firing: Firing) -> FiringObject:
    """A firing as its owner sees it."""
    return {
        "id": firing.id,
        "object": "schedule.firing",
        "schedule_id": firing.schedule_id,
        "status": firing.status,
        "fire_time": int(firing.fire_time.timestamp()),
        "fired_at": int(firing.fired_at.timestamp()),
        "missed_since": seconds(firing.missed_since),
        "job_id": firing.job_id,
        "job_state": firing.job_state,
        "response_id": firing.response_id,
        "error": {"code": firing.error["code"], "message": firing.error["message"]} if firing.error else None,
    }


def _shown(trigger: dict[str, Any]) -> dict[str, Any]:
    return {"start_at" if name == "start" else name: value for name, value in trigger.items()}


def _trigger(call: Call, body: CronTrigger | IntervalTrigger | OnceTrigger) -> Cron | Interval | Once:
    """What is meant. Raises InvalidRequest."""
    if isinstance(body, CronTrigger):
        return _cron(body)
    with call.platform.database.connection() as connection:
        now = schedules.clock(connection).replace(microsecond=0)
    given, param = (body.at, "trigger.at") if isinstance(body, OnceTrigger) else (body.start_at, "trigger.start_at")
    if given is not None and given > now.timestamp() + FURTHEST:
        raise InvalidRequest(f"Invalid value for '{param}': it lies more than ten years ahead.", param=param)
    time = moment(given) or now
    return Once(time) if isinstance(body, OnceTrigger) else Interval(body.seconds, time)


def _cron(body: CronTrigger) -> Cron:
    if body.time_zone not in cron.time_zones():
        message = f"Invalid value for 'trigger.time_zone': there is no time zone '{cut(body.time_zone)}'."
        raise InvalidRequest(message, param="trigger.time_zone")
    try:
        cron.check(body.expression)
    except ValueError as error:
        param = "trigger.expression"
        raise InvalidRequest(f"Invalid value for '{param}': {cut(str(error))}.", param=param) from None
    return Cron(body.expression, body.time_zone)


def _work(call: Call, body: WorkBody) -> Work:
    """The work as it will be started. Raises InvalidRequest for what is not to be had, as the work's own door does."""
    if body.kind not in STARTERS:
        message = f"Unsupported value for 'work.kind': '{cut(body.kind)}'; there is {', '.join(STARTERS)}."
        raise InvalidRequest(message, param="work.kind", code="unsupported_value")
    if body.kind == "turn":
        return _turn(call, body)
    if body.request is not None:
        param = "work.request"
        raise InvalidRequest(f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")
    return Work(body.kind, {}, {}, lambda _: None)


def _turn(call: Call, body: WorkBody) -> Work:
    asked = body.request
    if asked is None:
        param = "work.request"
        raise InvalidRequest(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    for name in ("stream", "stream_options", "background"):
        if getattr(asked, name) is not None:
            message = f"Unsupported parameter: 'work.request.{name}'; nobody waits for the turn of a schedule."
            raise InvalidRequest(message, param=f"work.request.{name}", code="unsupported_parameter")
    with _below("work.request"):
        turn = new_turn(asked.model_copy(update={"background": True}), call.platform.settings)

    def check(connection: Connection) -> None:
        with _below("work.request"):
            turns.check(connection, call.caller.account_id, turn)

    said = asked.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if len(orjson.dumps(said)) > LARGEST:
        raise TooLarge(f"The request of a schedule should have at most {LARGEST} bytes.", param="work.request")
    plan = turns.planned(turn, any_model=asked.model in (None, DEFAULT))
    return Work("turn", {"request": said}, plan, check)


@contextmanager
def _below(place: str) -> Iterator[None]:
    """Let a refusal name its parameter from the top of the body."""
    try:
        yield
    except (InvalidRequest, NotFound) as error:
        error.param = f"{place}.{error.param}" if error.param else place
        raise

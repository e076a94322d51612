"""`/v1/schedules`: what users want to happen at some time, or again and again."""

from collections.abc import Iterator
from contextlib import contextmanager

import orjson
from starlette.responses import Response

from models.platform.database import Connection
from models.platform.errors import InvalidRequest, NotFound, TooLarge
from models.schedules import firings, schedules
from pipelines.schedules import cron, turns, user_schedules
from pipelines.schedules.starters import STARTERS
from pipelines.schedules.triggers import Cron, Interval, Once
from pipelines.schedules.user_schedules import NewSchedule, ScheduleChanges, ScheduledWork
from web.api.request import Request
from web.api.schedules.shapes import (
    ChangeSchedule,
    CreateSchedule,
    CronTrigger,
    IntervalTrigger,
    OnceTrigger,
    ScheduleDeleted,
    WorkBody,
    firing_object,
    schedule_object,
)
from web.api.turns.models import DEFAULT
from web.api.turns.requests import new_turn
from web.http import bodies
from web.http.paging import Listing, page_response
from web.http.responses import json_response
from web.http.timestamps import from_unix
from web.http.validation import parse_query, truncate

#: Ten years, in seconds: the furthest that a start or a single time may lie ahead.
FURTHEST = 10 * 366 * 86_400

#: Bytes of a turn's request as JSON: a list shows a hundred of them.
LARGEST = 262_144


def create(request: Request) -> Response:
    """`POST /v1/schedules`: let a turn happen at some time, or again and again, in the caller's name."""
    body = bodies.parse(request.body, CreateSchedule)
    new = NewSchedule(
        name=body.name,
        trigger=_trigger(request, body.trigger),
        work=_work(request, body.work),
        if_missed=body.if_missed,
        grace_seconds=body.grace_seconds,
        paused=body.paused,
    )
    made = user_schedules.create(request.platform.database, request.caller, new, request.new_id("sched"))
    return json_response(schedule_object(made), 201)


def list_schedules(request: Request) -> Response:
    """`GET /v1/schedules`: the caller's schedules, newest first; for an admin the account's."""
    query = parse_query(request.query, Listing)
    user_id = user_schedules.owner_filter(request.caller)
    with request.platform.database.connection() as connection:
        found = schedules.list_schedules(
            connection, request.caller.account_id, user_id=user_id, after=query.after, limit=query.fetch_limit
        )
    return page_response(found, query.limit, schedule_object)


def read(request: Request) -> Response:
    """`GET /v1/schedules/{id}`: with its next times and its last firing."""
    with request.platform.database.connection() as connection:
        return json_response(
            schedule_object(user_schedules.find(connection, request.caller, request.path_params["schedule_id"]))
        )


def change(request: Request) -> Response:
    """`PATCH /v1/schedules/{id}`: other words, times or work, by who it acts for. A new trigger counts from now."""
    body = bodies.parse(request.body, ChangeSchedule)
    changes = ScheduleChanges(
        name=body.name,
        trigger=_trigger(request, body.trigger) if body.trigger else None,
        work=_work(request, body.work) if body.work else None,
        if_missed=body.if_missed,
        grace_seconds=body.grace_seconds,
        paused=body.paused,
    )
    changed = user_schedules.change(
        request.platform.database, request.caller, request.path_params["schedule_id"], changes
    )
    return json_response(schedule_object(changed))


def pause(request: Request) -> Response:
    """`POST /v1/schedules/{id}/pause`: it does not fire until it is resumed."""
    paused = user_schedules.pause(
        request.platform.database, request.caller, request.path_params["schedule_id"], paused=True
    )
    return json_response(schedule_object(paused))


def resume(request: Request) -> Response:
    """`POST /v1/schedules/{id}/resume`: it fires at its next time; times while it was paused are not made up for."""
    resumed = user_schedules.pause(
        request.platform.database, request.caller, request.path_params["schedule_id"], paused=False
    )
    return json_response(schedule_object(resumed))


def delete(request: Request) -> Response:
    """`DELETE /v1/schedules/{id}`: forget it and its history; jobs that it has started go on."""
    user_schedules.delete(request.platform.database, request.caller, request.path_params["schedule_id"])
    deleted: ScheduleDeleted = {"id": request.path_params["schedule_id"], "object": "schedule.deleted", "deleted": True}
    return json_response(deleted)


def list_firings(request: Request) -> Response:
    """`GET /v1/schedules/{id}/firings`: when it fired and what came of it, newest first, for the last 90 days."""
    query = parse_query(request.query, Listing)
    with request.platform.database.connection() as connection:
        schedule = user_schedules.find(connection, request.caller, request.path_params["schedule_id"])
        found = firings.list_firings(
            connection, schedule.id, request.caller.account_id, after=query.after, limit=query.fetch_limit
        )
    return page_response(found, query.limit, firing_object)


def _trigger(request: Request, body: CronTrigger | IntervalTrigger | OnceTrigger) -> Cron | Interval | Once:
    """What is meant. Raises InvalidRequest."""
    if isinstance(body, CronTrigger):
        return _cron(body)
    with request.platform.database.connection() as connection:
        now = schedules.database_time(connection).replace(microsecond=0)
    given, param = (body.at, "trigger.at") if isinstance(body, OnceTrigger) else (body.start_at, "trigger.start_at")
    if given is not None and given > now.timestamp() + FURTHEST:
        raise InvalidRequest(f"Invalid value for '{param}': it lies more than ten years ahead.", param=param)
    time = from_unix(given) or now
    return Once(time) if isinstance(body, OnceTrigger) else Interval(body.seconds, time)


def _cron(body: CronTrigger) -> Cron:
    if body.time_zone not in cron.time_zones():
        message = f"Invalid value for 'trigger.time_zone': there is no time zone '{truncate(body.time_zone)}'."
        raise InvalidRequest(message, param="trigger.time_zone")
    try:
        cron.validate(body.expression)
    except ValueError as error:
        param = "trigger.expression"
        raise InvalidRequest(f"Invalid value for '{param}': {truncate(str(error))}.", param=param) from None
    return Cron(body.expression, body.time_zone)


def _work(request: Request, body: WorkBody) -> ScheduledWork:
    """The work as it will be started. Raises InvalidRequest for what is not to be had, as the work's own door does."""
    if body.kind not in STARTERS:
        message = f"Unsupported value for 'work.kind': '{truncate(body.kind)}'; there is {', '.join(STARTERS)}."
        raise InvalidRequest(message, param="work.kind", code="unsupported_value")
    if body.kind == "turn":
        return _turn(request, body)
    if body.request is not None:
        param = "work.request"
        raise InvalidRequest(f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")
    return ScheduledWork(body.kind, {}, {}, lambda _: None)


def _turn(request: Request, body: WorkBody) -> ScheduledWork:
    asked = body.request
    if asked is None:
        param = "work.request"
        raise InvalidRequest(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    for name in ("stream", "stream_options", "background"):
        if getattr(asked, name) is not None:
            message = f"Unsupported parameter: 'work.request.{name}'; nobody waits for the turn of a schedule."
            raise InvalidRequest(message, param=f"work.request.{name}", code="unsupported_parameter")
    with _below("work.request"):
        turn = new_turn(asked.model_copy(update={"background": True}), request.platform.settings)

    def check(connection: Connection) -> None:
        with _below("work.request"):
            turns.check(connection, request.caller.account_id, turn)

    said = asked.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if len(orjson.dumps(said)) > LARGEST:
        raise TooLarge(f"The request of a schedule should have at most {LARGEST} bytes.", param="work.request")
    plan = turns.turn_plan(turn, any_model=asked.model in (None, DEFAULT))
    return ScheduledWork("turn", {"request": said}, plan, check)


@contextmanager
def _below(place: str) -> Iterator[None]:
    """Let a refusal name its parameter from the top of the body."""
    try:
        yield
    except (InvalidRequest, NotFound) as error:
        error.param = f"{place}.{error.param}" if error.param else place
        raise

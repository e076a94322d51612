"""`/v1/schedules`: create, list, read, update, pause and delete schedules, and list their firings."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import orjson
from starlette.responses import Response

from models.access import api_keys
from models.accounts.ownership import Access
from models.platform.database import Connection
from models.platform.errors import InvalidRequest, NotAllowed, NotFound, TooLarge
from models.platform.texts import truncate
from models.schedules import firings, schedules
from models.serving.served_models import DEFAULT_ALIAS
from pipelines.agents.agent_turns import engine_model
from pipelines.chat.input_files import has_files
from pipelines.chat.new_turn import NewTurn
from pipelines.chat.turn_space import space_name, with_space
from pipelines.requests.turn_request import new_turn
from pipelines.requests.validation import missing_parameter
from pipelines.schedules import cron, turns, user_schedules
from pipelines.schedules.starters import STARTERS
from pipelines.schedules.triggers import Cron, Interval, Once
from pipelines.schedules.user_schedules import NewSchedule, ScheduleChanges, ScheduledWork
from web.api.reports.schemas import CreateReport
from web.api.request import Request
from web.api.requested_space import check_space
from web.api.schedules.report_work import operator_report_work, report_work
from web.api.schedules.schemas import (
    CreateSchedule,
    CronTrigger,
    IntervalTrigger,
    OnceTrigger,
    ScheduleDeleted,
    UpdateSchedule,
    Work,
    firing_object,
    schedule_object,
)
from web.api.turns.serving import serving_now
from web.api.turns.started_turn import require_file_readers
from web.http import bodies
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response
from web.http.timestamps import from_unix

#: The furthest that `start_at` or `at` may be in the future: ten years, in seconds.
MAX_SECONDS_AHEAD = 10 * 366 * 86_400

#: Bytes of a turn's request as JSON. A page of schedules contains up to a hundred of them.
MAX_REQUEST_BYTES = 262_144

#: Kind of work that is a report → the function that converts its body.
REPORT_WORK: Mapping[str, Callable[[Request, CreateReport], ScheduledWork]] = {
    "report": report_work,
    "operator_report": operator_report_work,
}


def create(request: Request) -> Response:
    """`POST /v1/schedules`: create a schedule that starts a turn, a meditation or a report of the caller.

    The response to a repetition is read from the row: a copy of each could have 256 KiB. Raises NotFound if the
    schedule was deleted since.
    """
    schedule_id = request.new_id("sched")
    if request.repeat == "answered":
        return _read(request, schedule_id, 201)
    body = bodies.parse(request.body, CreateSchedule)
    new = NewSchedule(
        name=body.name,
        trigger=_parse_trigger(request, body.trigger),
        work=_parse_work(request, body.work),
        if_missed=body.if_missed,
        grace_seconds=body.grace_seconds,
        paused=body.paused,
    )
    schedule = user_schedules.create(request.platform.database, request.caller, new, schedule_id)
    return json_response(schedule_object(schedule), 201)


def list_schedules(request: Request) -> Response:
    """`GET /v1/schedules`: list the caller's schedules, for an admin those of the account, newest first."""
    query = parse_query(request.query, Listing)
    user_id = user_schedules.owner_filter(request.caller)
    with request.platform.database.connection() as connection:
        records = schedules.list_schedules(
            connection, request.caller.account_id, user_id=user_id, after=query.after, limit=query.fetch_limit
        )
    return page_response(records, query.limit, schedule_object)


def read(request: Request) -> Response:
    """`GET /v1/schedules/{id}`: read a schedule, with its next fire times and its last firing."""
    return _read(request, request.path_params["schedule_id"])


def _read(request: Request, schedule_id: str, status: int = 200) -> Response:
    with request.platform.database.connection() as connection:
        schedule = user_schedules.find(connection, request.caller, schedule_id)
    return json_response(schedule_object(schedule), status)


def update(request: Request) -> Response:
    """`PATCH /v1/schedules/{id}`: update a schedule of the caller. A new trigger applies from now on."""
    body = bodies.parse(request.body, UpdateSchedule)
    changes = ScheduleChanges(
        name=body.name,
        trigger=_parse_trigger(request, body.trigger) if body.trigger else None,
        work=_parse_work(request, body.work) if body.work else None,
        if_missed=body.if_missed,
        grace_seconds=body.grace_seconds,
        paused=body.paused,
    )
    schedule = user_schedules.change(
        request.platform.database, request.caller, request.path_params["schedule_id"], changes
    )
    return json_response(schedule_object(schedule))


def pause(request: Request) -> Response:
    """`POST /v1/schedules/{id}/pause`: pause a schedule until it is resumed."""
    paused = user_schedules.pause(
        request.platform.database, request.caller, request.path_params["schedule_id"], paused=True
    )
    return json_response(schedule_object(paused))


def resume(request: Request) -> Response:
    """`POST /v1/schedules/{id}/resume`: resume a schedule. Firings during the pause are not made up."""
    resumed = user_schedules.pause(
        request.platform.database, request.caller, request.path_params["schedule_id"], paused=False
    )
    return json_response(schedule_object(resumed))


def delete(request: Request) -> Response:
    """`DELETE /v1/schedules/{id}`: delete a schedule and its firings. Jobs that it has started continue."""
    user_schedules.delete(request.platform.database, request.caller, request.path_params["schedule_id"])
    deleted: ScheduleDeleted = {"id": request.path_params["schedule_id"], "object": "schedule.deleted", "deleted": True}
    return json_response(deleted)


def list_firings(request: Request) -> Response:
    """`GET /v1/schedules/{id}/firings`: list a schedule's firings of the last 90 days, newest first."""
    query = parse_query(request.query, Listing)
    with request.platform.database.connection() as connection:
        schedule = user_schedules.find(connection, request.caller, request.path_params["schedule_id"])
        records = firings.list_firings(
            connection, schedule.id, request.caller.account_id, after=query.after, limit=query.fetch_limit
        )
    return page_response(records, query.limit, firing_object)


def _parse_trigger(request: Request, body: CronTrigger | IntervalTrigger | OnceTrigger) -> Cron | Interval | Once:
    """Convert the body's trigger. Raises InvalidRequest."""
    if isinstance(body, CronTrigger):
        return _parse_cron(body)
    with request.platform.database.connection() as connection:
        now = schedules.database_time(connection).replace(microsecond=0)
    seconds, param = (body.at, "trigger.at") if isinstance(body, OnceTrigger) else (body.start_at, "trigger.start_at")
    if seconds is not None and seconds > now.timestamp() + MAX_SECONDS_AHEAD:
        raise InvalidRequest(f"Invalid value for '{param}': it should be at most ten years in the future.", param=param)
    time = from_unix(seconds) or now
    return Once(time) if isinstance(body, OnceTrigger) else Interval(body.seconds, time)


def _parse_cron(body: CronTrigger) -> Cron:
    if body.time_zone not in cron.time_zones():
        name = truncate(body.time_zone)
        message = f"Invalid value for 'trigger.time_zone': '{name}' is not an IANA time zone, such as 'Europe/Berlin'."
        raise InvalidRequest(message, param="trigger.time_zone")
    try:
        cron.validate(body.expression)
    except ValueError as error:
        param = "trigger.expression"
        raise InvalidRequest(f"Invalid value for '{param}': {truncate(str(error))}.", param=param) from None
    return Cron(body.expression, body.time_zone)


def _parse_work(request: Request, body: Work) -> ScheduledWork:
    """Convert the body's work. Raises InvalidRequest and NotFound, like the endpoint of that work."""
    if body.kind not in STARTERS:
        supported = ", ".join(f"'{kind}'" for kind in STARTERS)
        message = f"Unsupported value for 'work.kind': '{truncate(body.kind)}'. Supported values are: {supported}."
        raise InvalidRequest(message, param="work.kind", code="unsupported_value")
    if body.kind == "turn":
        return _parse_turn(request, body)
    if body.request is not None:
        raise _unknown("work.request")
    if body.kind in REPORT_WORK:
        return _parse_report(request, body)
    if body.report is not None:
        raise _unknown("work.report")
    check_space(request.platform, request.caller, body.space, "work.space")
    space = {"space": body.space} if body.space else {}
    return ScheduledWork(body.kind, space, space, lambda _: None)


def _parse_report(request: Request, body: Work) -> ScheduledWork:
    if body.space is not None:
        raise _unknown("work.space")
    if body.report is None:
        raise missing_parameter("work.report")
    with _prefix_param("work.report"):
        work = REPORT_WORK[body.kind](request, body.report)

    def check(connection: Connection) -> None:
        with _prefix_param("work.report"):
            work.check(connection)

    return replace(work, check=check)


def _unknown(param: str) -> InvalidRequest:
    return InvalidRequest(f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")


def _parse_turn(request: Request, body: Work) -> ScheduledWork:
    turn_request = body.request
    for name in ("space", "report"):
        if getattr(body, name) is not None:
            raise _unknown(f"work.{name}")
    if turn_request is None:
        param = "work.request"
        raise InvalidRequest(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    for name in ("stream", "stream_options", "background"):
        if getattr(turn_request, name) is not None:
            message = f"Unsupported parameter: 'work.request.{name}'. Scheduled turns always run in the background."
            raise InvalidRequest(message, param=f"work.request.{name}", code="unsupported_parameter")
    with _prefix_param("work.request"):
        turn = _in_space(request, new_turn(turn_request.model_copy(update={"background": True}), serving_now(request)))
        _check_scheduled(turn)
        request.allowance.limits.check_model(engine_model(turn.request))

    def check(connection: Connection) -> None:
        with _prefix_param("work.request"):
            turns.check(connection, Access.own(request.caller), turn)

    stored_request = turn_request.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if (size := len(orjson.dumps(stored_request))) > MAX_REQUEST_BYTES:
        raise TooLarge(
            f"'work.request' is too large: it has {size:,} bytes as JSON, the maximum is {MAX_REQUEST_BYTES:,}.",
            param="work.request",
        )
    if has_files(turn.input):
        require_file_readers(request)
    plan = turns.turn_plan(turn, any_model=turn_request.model in (None, DEFAULT_ALIAS))
    plan["request"] |= _restrictions_of_key(request)
    return ScheduledWork("turn", {"request": stored_request}, plan, check)


def _restrictions_of_key(request: Request) -> dict[str, Any]:
    """Return what the API key restricts, which a firing does not have: whether turns may leave, and their models."""
    restrictions: dict[str, Any] = {"residency": "local"} if request.caller.residency == "local" else {}
    if (key_id := request.caller.key_id) is None:
        return restrictions
    with request.platform.database.connection() as connection:
        models = api_keys.models_of(connection, key_id, request.caller.account_id)
    return restrictions if models is None else {**restrictions, turns.KEY_MODELS: models}


def _check_scheduled(turn: NewTurn) -> None:
    """Raise InvalidRequest for what a schedule does not keep, or must not repeat."""
    if "mcp_credentials" in turn.request:
        message = (
            "Unsupported value for 'tools': 'headers' and 'authorization' of MCP servers are not stored in schedules. "
            "Register the server with POST /v1/mcp_servers, and name it by its 'server_label'."
        )
        raise InvalidRequest(message, param="tools", code="unsupported_value")
    if any(item["type"] == "mcp_approval_response" for item in turn.input):
        message = "Unsupported value for 'input': schedules give no approvals."
        raise InvalidRequest(message, param="input", code="unsupported_value")


def _in_space(request: Request, turn: NewTurn) -> NewTurn:
    """Return the turn with its space, as `POST /v1/responses` runs it."""
    if name := space_name(turn.request):
        check_space(request.platform, request.caller, name, "memory.space")
    return with_space(turn, request.caller, named_spaces=True)


@contextmanager
def _prefix_param(prefix: str) -> Iterator[None]:
    """Prefix the parameter of an error, so that it is named from the top of the body."""
    try:
        yield
    except (InvalidRequest, NotAllowed, NotFound) as error:
        error.param = f"{prefix}.{error.param}" if error.param else prefix
        raise

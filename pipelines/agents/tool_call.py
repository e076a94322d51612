"""The pipeline of `tool.call`: call one tool of a server, and return what it answered.

A tool that only reads, or may be repeated, is called again by the next attempt. Any other call is an effect: its intent
is stored before it is sent. An attempt that finds the intent of an earlier one does not call again: the call is in
doubt, and a person decides. Errors of servers are results, which the model reads.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import orjson

from models.agents import tool_lists as stored_lists
from models.jobs import effects as stored_effects
from models.jobs.attempt_context import Attempt, Outcome, plain_ending
from models.jobs.attempts import Ending
from models.platform.database import Connection
from models.platform.errors import PermanentFailure, Released
from models.platform.metrics import TOOL_CALL_DURATION, observe
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.turns import responses
from models.turns.responses import Response
from pipelines import effects
from pipelines.agents import platform_tools, tool_lists, turn_servers
from pipelines.agents.attempt_watch import AttemptWatch
from pipelines.agents.call_results import CallResult, error_result, fault_result, in_doubt, result_of
from pipelines.agents.event_loop import Stopped
from pipelines.agents.listed_tool import ListedTool
from pipelines.agents.long_results import LongResults
from pipelines.agents.mcp.outcomes import CallOutcome, CallState, ServerFault
from pipelines.agents.servers import ServerReference
from pipelines.agents.tool_span import note_result, tool_span

#: Seconds that are left of an attempt when its call is given up, for the end of the job.
MARGIN = 10.0

#: Seconds that an attempt follows a task before it yields its thread, and those for which a task is followed at all.
TASK_SLICE, TASK_LIMIT = 60.0, 3_600.0

#: Calls that are sent at most while the server cannot be reached, or, of a tool that may be repeated, does not answer;
#: seconds between two of them.
TRIES, RETRY_DELAY = 3, 0.5

#: The code of a recorded failure that means: the call may have had its effect.
IN_DOUBT = "in_doubt"
INTERRUPTED = "The worker stopped before the tool had answered: it may have been called."


@dataclass(frozen=True, slots=True)
class Call:
    """A call to make.

    tool     as it was listed; None if it is not listed any more
    version  the revision of the protocol that the server spoke
    """

    server: ServerReference
    tool: ListedTool | None
    name: str
    arguments: Mapping[str, Any]
    version: str | None

    @property
    def repeatable(self) -> bool:
        """Whether an attempt may repeat the call of an earlier one."""
        return self.tool is not None and (self.tool.read_only or self.tool.idempotent)


def run(settings: Settings, objects: ObjectStore, attempt: Attempt) -> Outcome:
    """Call a tool. Raises the reason to stop, and PermanentFailure if the response was deleted."""
    with tool_span(attempt.job) as span:
        outcome = _run(settings, objects, attempt)
        note_result(span, outcome)
    return outcome


def _run(settings: Settings, objects: ObjectStore, attempt: Attempt) -> Outcome:
    with attempt.database.connection() as connection:
        response = responses.read_of_job(connection, attempt.job)
        server = turn_servers.server_of_job(settings, connection, attempt)
    if server is None:
        return _ending(attempt, error_result(turn_servers.NO_SERVER))
    arguments = _parsed_arguments(attempt.job.arguments["arguments"])
    if arguments is None:
        message = "The arguments are not a JSON object."
        return _ending(attempt, error_result(message))
    call = _call(attempt, server, arguments)
    if server.source == "platform":
        return _platform_call(settings, objects, attempt, response, call)
    results = LongResults(settings, objects, attempt, response)
    return _ending(attempt, _server_call(results, call))


def end(attempt: Attempt, state: Literal["cancelled", "failed", "dead"], error: Mapping[str, Any] | None) -> Ending:
    """End a job that did not complete. Its call may have had its effect; no attempt follows that would look it up."""
    job_id = attempt.job.id

    def record(connection: Connection) -> None:
        stored_effects.close_intents(connection, job_id, {"code": IN_DOUBT, "message": INTERRUPTED})
        stored_effects.drop_results(connection, job_id)

    return replace(plain_ending(attempt, state, error), record=record)


def _parsed_arguments(text: str) -> Mapping[str, Any] | None:
    try:
        parsed = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _call(attempt: Attempt, server: ServerReference, arguments: Mapping[str, Any]) -> Call:
    name, account_id = attempt.job.arguments["name"], attempt.job.account_id
    with attempt.database.connection() as connection:
        tool = tool_lists.find(connection, account_id, server, name)
        cached = stored_lists.read(connection, account_id, server.key, expired=True)
    return Call(server, tool, name, arguments, cached.version if cached else None)


def _platform_call(
    settings: Settings, objects: ObjectStore, attempt: Attempt, response: Response, call: Call
) -> Outcome:
    if call.tool is None:
        message = f"The platform has no tool {call.name}, or the request does not allow it."
        return _ending(attempt, error_result(message))
    began = time.monotonic()
    outcome = platform_tools.run(settings, objects, attempt, response, call.name, call.arguments)
    if not isinstance(outcome, CallResult):
        return outcome
    _observe("platform", began, failed=outcome.error is not None)
    return _ending(attempt, outcome)


def _observe(kind: str, began: float, *, failed: bool) -> None:
    outcome = "error" if failed else "success"
    observe(TOOL_CALL_DURATION.labels(kind, outcome), time.monotonic() - began)


def _server_call(results: LongResults, call: Call) -> CallResult:
    """Call a tool of a server: again in each attempt if it may be repeated, otherwise once."""
    attempt = results.attempt
    if call.repeatable or _task_id(attempt) is not None:
        return _repeatable_call(results, call)
    approved = attempt.job.arguments.get("approved")
    step = f"{stored_effects.TOOL_CALL}.approved" if approved else stored_effects.TOOL_CALL
    request = {"name": call.name, "arguments": attempt.job.arguments["arguments"]}
    try:
        stored = effects.perform(attempt, step, request, lambda _: _unrepeated_call(results, call).as_json, _look_up)
    except PermanentFailure as failure:
        if failure.code == IN_DOUBT:
            return in_doubt(failure.message)
        raise
    return CallResult(**stored)


def _look_up(key: str) -> PermanentFailure:
    """Return that the call of an earlier attempt is in doubt: the protocol has no way to look its outcome up."""
    return PermanentFailure(INTERRUPTED, code=IN_DOUBT)


def _repeatable_call(results: LongResults, call: Call) -> CallResult:
    try:
        return result_of(_send(results.settings, results.attempt, call), results.shorten)
    except ServerFault as fault:
        return fault_result(fault)


def _unrepeated_call(results: LongResults, call: Call) -> CallResult:
    """Call a tool once. Raises PermanentFailure with IN_DOUBT if no answer came, but the call may have arrived."""
    try:
        return result_of(_send(results.settings, results.attempt, call), results.shorten)
    except ServerFault as fault:
        if fault.uncertain:
            raise PermanentFailure(fault.message, code=IN_DOUBT) from fault
        return fault_result(fault)


def _send(settings: Settings, attempt: Attempt, call: Call) -> CallOutcome:
    """Send a call, and again what may be sent again. Raises ServerFault and the reason to stop."""
    for number in range(1, TRIES + 1):
        began = time.monotonic()
        try:
            outcome = _send_once(settings, attempt, call)
            _observe("mcp", began, failed=outcome.error is not None)
            return outcome
        except ServerFault as fault:
            _observe("mcp", began, failed=True)
            again = fault.type == "http_error" and (fault.unsent or (fault.uncertain and call.repeatable))
            if number == TRIES or not again:
                raise
        _pause(attempt, RETRY_DELAY * number)
    raise AssertionError


def _send_once(settings: Settings, attempt: Attempt, call: Call) -> CallOutcome:
    from pipelines.agents.mcp import client  # loads the SDK

    state = CallState(task_id=_task_id(attempt))
    watch = AttemptWatch(attempt, state, patient=not call.repeatable, task_slice=TASK_SLICE)
    timeout = max(1.0, attempt.deadline - time.monotonic() - MARGIN)
    send = partial(client.call_tool, settings, call.server, call.name, call.arguments, state)
    try:
        return send(version=call.version, timeout=timeout, should_stop=watch)
    except Stopped:
        attempt.check()
        if watch.yielded and not _task_is_overdue(attempt):
            raise Released("The task of the tool runs on.", delay=1.0) from None
        raise ServerFault("timeout", f"The task has not ended within {TASK_LIMIT:,.0f} seconds.") from None


def _task_id(attempt: Attempt) -> str | None:
    """Return the id of the task that an earlier attempt's call has made."""
    resume = (attempt.job.progress or {}).get("resume") or {}
    return resume.get("task_id")


def _task_is_overdue(attempt: Attempt) -> bool:
    return time.time() - attempt.job.created_at.timestamp() > TASK_LIMIT


def _pause(attempt: Attempt, seconds: float) -> None:
    """Wait, and raise the reason to stop."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        attempt.check()
        time.sleep(0.05)


def _ending(attempt: Attempt, result: CallResult) -> Ending:
    """Return the ending with the result. The journal gets its size only, and the effect's copy of it is deleted."""
    summary = {"error": result.error and result.error["type"], "bytes": len((result.output or "").encode())}
    ending = plain_ending(attempt, "completed", result=summary)
    job_id = attempt.job.id
    return replace(
        ending, result=result.as_json, record=lambda connection: stored_effects.drop_results(connection, job_id)
    )

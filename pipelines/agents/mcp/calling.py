"""Call a tool of a server that is connected, follow its task if it makes one, and return its output as text."""

from collections.abc import Mapping
from typing import Any, Literal

import anyio
from mcp_types import CallToolRequest, CallToolRequestParams, CallToolResult, ElicitRequest, InputRequiredResult
from mcp_types import Request as McpRequest
from pydantic import BaseModel, ConfigDict

from pipelines.agents.mcp.connection import Connection
from pipelines.agents.mcp.content import content_text
from pipelines.agents.mcp.outcomes import CallOutcome, CallState, ServerFault
from pipelines.agents.mcp.values import clean_text

#: Requests of a call whose server has only asked to repeat it, and the seconds between two of them.
MAX_ROUNDS, ROUND_DELAY = 10, 0.25

#: Seconds between two looks at a task: what the server suggests, in these bounds.
DEFAULT_INTERVAL, MIN_INTERVAL, MAX_INTERVAL = 1.0, 0.2, 30.0

#: Seconds for the request that cancels a task.
CANCEL_TIMEOUT = 1.5

#: Characters of a task's id.
MAX_TASK_ID = 1_024


class _AnyResult(BaseModel):
    """A result of any type, which `resultType` names."""

    model_config = ConfigDict(extra="allow")


class _GetTask(McpRequest[dict[str, Any], Literal["tasks/get"]]):
    name_param = "taskId"
    method: Literal["tasks/get"] = "tasks/get"


class _CancelTask(McpRequest[dict[str, Any], Literal["tasks/cancel"]]):
    name_param = "taskId"
    method: Literal["tasks/cancel"] = "tasks/cancel"


async def call_tool(connection: Connection, name: str, arguments: Mapping[str, Any], state: CallState) -> CallOutcome:
    """Call a tool. Raises MCPError, ValidationError and ServerFault."""
    request_state: str | None = None
    for _ in range(MAX_ROUNDS):
        raw = await _send(connection, name, arguments, request_state, state)
        match raw.get("resultType"):
            case "task":
                state.task_id = _new_task_id(raw)
                return await follow_task(connection, state.task_id, state)
            case "input_required":
                required = InputRequiredResult.model_validate(raw, by_name=False)
                if required.input_requests:
                    return _input_required(required)
                request_state = required.request_state
                await anyio.sleep(ROUND_DELAY)
            case _:
                return _outcome(connection, raw)
    raise ServerFault("mcp_protocol_error", f"The server asked {MAX_ROUNDS} times to repeat the call.")


async def follow_task(connection: Connection, task_id: str, state: CallState) -> CallOutcome:
    """Wait for the end of a task, and cancel it if this is cancelled. Raises as `call_tool`."""
    try:
        while True:
            raw = await _request(connection, _GetTask(params={"taskId": task_id}))
            if (outcome := _task_outcome(connection, raw)) is not None:
                return outcome
            state.progress = (0, None, clean_text(str(raw.get("statusMessage") or "")))
            await anyio.sleep(_interval(raw.get("pollIntervalMs")))
    except anyio.get_cancelled_exc_class():
        with anyio.move_on_after(CANCEL_TIMEOUT, shield=True):
            await _request(connection, _CancelTask(params={"taskId": task_id}))
        raise


async def _send(
    connection: Connection, name: str, arguments: Mapping[str, Any], request_state: str | None, state: CallState
) -> dict[str, Any]:
    async def report(progress: float, total: float | None, message: str | None) -> None:
        state.progress = (progress, total, clean_text(message or ""))

    parameters = CallToolRequestParams(name=name, arguments=dict(arguments), request_state=request_state)
    request = CallToolRequest(params=parameters)
    result = await connection.client.session.send_request(request, _AnyResult, progress_callback=report)
    return result.model_extra or {}


async def _request(connection: Connection, request: McpRequest[Any, Any]) -> dict[str, Any]:
    return (await connection.client.session.send_request(request, _AnyResult)).model_extra or {}


def _outcome(connection: Connection, raw: Mapping[str, Any]) -> CallOutcome:
    result = CallToolResult.model_validate(raw, by_name=False)
    text = content_text(result)
    if connection.asked:
        text += "\n\n" + _question(connection.asked)
    return CallOutcome(text, "mcp_tool_execution_error" if result.is_error else None)


def _task_outcome(connection: Connection, raw: Mapping[str, Any]) -> CallOutcome | None:
    """Return the outcome of a task that has ended, or that waits for input, which a job cannot give."""
    match raw.get("status"):
        case "completed":
            return _outcome(connection, raw.get("result") or {})
        case "failed":
            error = raw.get("error")
            message = error.get("message") if isinstance(error, dict) else raw.get("statusMessage")
            return CallOutcome(clean_text(str(message or "The task failed.")), "mcp_tool_execution_error")
        case "cancelled":
            return CallOutcome("The server cancelled the task.", "mcp_tool_execution_error")
        case "input_required":
            return _input_required(
                InputRequiredResult.model_validate({"inputRequests": raw.get("inputRequests")}, by_name=False)
            )
    return None


def _new_task_id(raw: Mapping[str, Any]) -> str:
    """Return the id of the task that a call has made. Raises ServerFault."""
    task_id = raw.get("taskId")
    if not isinstance(task_id, str) or not 0 < len(task_id) <= MAX_TASK_ID or not task_id.isprintable():
        raise ServerFault("mcp_protocol_error", "The server made a task without a valid id.", uncertain=True)
    return task_id


def _input_required(required: InputRequiredResult) -> CallOutcome:
    requests = (required.input_requests or {}).values()
    asked = [
        clean_text(request.params.message) if isinstance(request, ElicitRequest) else f"({request.method})"
        for request in requests
    ]
    return CallOutcome(_question(asked), "input_required")


def _question(asked: list[str]) -> str:
    return "The tool needs an answer of the user, which it cannot get during the call. It asks: " + " / ".join(asked)


def _interval(milliseconds: object) -> float:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return DEFAULT_INTERVAL
    return min(max(milliseconds / 1000, MIN_INTERVAL), MAX_INTERVAL)

"""MCP tasks: a turn that the client polls. The id of a task is that of its response.

Revision 2026-07-28 has them as the extension `io.modelcontextprotocol/tasks`, where the server decides to create one;
revision 2025-11-25 in its core, where the client asks for one.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY, ClientCapabilities, RequestParams

from models.platform.errors import NotAllowed, NotFound
from web.api.job_results import last_event
from web.api.mcp import operations
from web.api.mcp.results import answer_result
from web.api.request import Request
from web.api.turns.started_turn import MAX_WAIT

#: The extension of revision 2026-07-28.
EXTENSION = "io.modelcontextprotocol/tasks"

#: Metadata that names the task of a result, in revision 2025-11-25.
RELATED_TASK = "io.modelcontextprotocol/related-task"

#: Milliseconds after which a client should poll again.
POLL_INTERVAL = 1000

#: Statuses of responses that have ended.
ENDED = ("completed", "incomplete", "failed", "cancelled")


class TaskParams(RequestParams):
    """The parameters of all methods of tasks."""

    task_id: str


def knows_tasks(capabilities: ClientCapabilities | None) -> bool:
    """Return whether a client of revision 2026-07-28 has declared the extension."""
    return EXTENSION in ((capabilities and capabilities.extensions) or {})


def check_rights(request: Request) -> None:
    """Raise NotAllowed unless the caller may read the responses that tasks stand for."""
    operations.READ_RESPONSE.rights.check(request.caller)


def may_poll(request: Request, capabilities: ClientCapabilities | None) -> bool:
    """Return whether a client of revision 2026-07-28 knows tasks, and the caller may read them."""
    with suppress(NotAllowed):
        check_rights(request)
        return knows_tasks(capabilities)
    return False


def require_tasks(capabilities: ClientCapabilities | None) -> None:
    """Raise MCPError for a client that has not declared the extension."""
    if not knows_tasks(capabilities):
        required: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, f"Declare the extension {EXTENSION}.", required)


async def read(request: Request, task_id: str) -> dict[str, Any]:
    """Return the response object of a task. Raises MCPError if the caller has no such task."""
    try:
        return await operations.run(request, operations.READ_RESPONSE, response_id=task_id)
    except (NotFound, NotAllowed) as error:
        raise MCPError(INVALID_PARAMS, error.message) from None


async def cancel(request: Request, task_id: str) -> dict[str, Any]:
    """Cancel a task and return its response object; one that has ended stays as it is. Raises MCPError."""
    try:
        return await operations.run(request, operations.CANCEL_RESPONSE, response_id=task_id)
    except (NotFound, NotAllowed) as error:
        raise MCPError(INVALID_PARAMS, error.message) from None


def task(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task of revision 2026-07-28, without its result."""
    return {**_times(response), "status": status(response), "ttlMs": None, "pollIntervalMs": POLL_INTERVAL}


def detailed_task(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task of revision 2026-07-28, with the result if it has ended."""
    state = task(response)
    if state["status"] == "completed":
        state["result"] = answer_result(response).model_dump(by_alias=True, mode="json", exclude_none=True)
    return state


def status(response: Mapping[str, Any]) -> str:
    """Return the status of a task: a turn that failed has completed with an error as its result."""
    if response["status"] not in ENDED:
        return "working"
    return "cancelled" if response["status"] == "cancelled" else "completed"


def core_task(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task of revision 2025-11-25, in which an error as the result is a failure."""
    state = "failed" if response["status"] == "failed" else status(response)
    return {**_times(response), "status": state, "ttl": None, "pollInterval": POLL_INTERVAL}


def _times(response: Mapping[str, Any]) -> dict[str, str]:
    created = response["created_at"]
    updated = response["completed_at"] or created
    return {"taskId": response["id"], "createdAt": _rfc3339(created), "lastUpdatedAt": _rfc3339(updated)}


def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


async def wait(request: Request, job_id: str) -> None:
    """Wait until the job of a task has ended, or no event of it arrives for as long as a request may wait."""
    request.stream_permit.acquire()
    await last_event(request, job_id, MAX_WAIT)

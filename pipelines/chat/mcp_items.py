"""Items of the calls that the server runs, as OpenAI's API has them for tools of MCP servers.

Tools of the platform and agents that a turn delegates to have the same items, with the labels `sangha` and `agents`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from typing_extensions import TypedDict

from models.turns.responses import Response
from pipelines.agents.turn_tools import ToolListing, TurnTools

McpCallStatus = Literal["in_progress", "completed", "failed", "incomplete"]


class McpProtocolError(TypedDict):
    """The server did not answer as the protocol says, or rejected the call with this code."""

    type: Literal["mcp_protocol_error"]
    code: int
    message: str


class HttpError(TypedDict):
    """The server answered with this HTTP status, or could not be reached (0)."""

    type: Literal["http_error"]
    code: int
    message: str


class McpToolExecutionError(TypedDict):
    """The tool failed, or was not run: the parts of what it said."""

    type: Literal["mcp_tool_execution_error"]
    content: list[dict[str, Any]]


McpCallError = McpProtocolError | HttpError | McpToolExecutionError


class McpCallItem(TypedDict):
    """A call of a tool of an MCP server. `error` says why there is no `output`."""

    id: str
    type: Literal["mcp_call"]
    server_label: str
    name: str
    arguments: str
    output: str | None
    error: McpCallError | None
    status: McpCallStatus
    approval_request_id: str | None


class McpTool(TypedDict):
    """A tool that an MCP server offers."""

    name: str
    description: str
    input_schema: dict[str, Any]
    annotations: dict[str, Any]


class McpListToolsItem(TypedDict):
    """The tools that an MCP server offers, or why it could not be asked."""

    id: str
    type: Literal["mcp_list_tools"]
    server_label: str
    tools: list[McpTool]
    error: str | None


class McpApprovalRequestItem(TypedDict):
    """A call that a person has to approve before the server runs it. Its id is that of the approval."""

    id: str
    type: Literal["mcp_approval_request"]
    server_label: str
    name: str
    arguments: str


class McpApprovalResponseItem(TypedDict):
    """A person's decision on a request for approval of an earlier turn."""

    id: str
    type: Literal["mcp_approval_response"]
    approval_request_id: str
    approve: bool
    reason: str | None


def mcp_call_item(
    suffix: str,
    label: str,
    name: str,
    arguments: str,
    *,
    status: McpCallStatus = "in_progress",
    output: str | None = None,
    error: McpCallError | None = None,
    approval_request_id: str | None = None,
) -> McpCallItem:
    """Build the item of a call; `suffix` follows the prefix of its id."""
    return {
        "id": f"mcp_{suffix}",
        "type": "mcp_call",
        "server_label": label,
        "name": name,
        "arguments": arguments,
        "output": output,
        "error": error,
        "status": status,
        "approval_request_id": approval_request_id,
    }


def approval_request_item(approval_id: str, label: str, name: str, arguments: str) -> McpApprovalRequestItem:
    """Build the item of a request for approval."""
    return {
        "id": approval_id,
        "type": "mcp_approval_request",
        "server_label": label,
        "name": name,
        "arguments": arguments,
    }


def list_tools_item(suffix: str, listing: ToolListing) -> McpListToolsItem:
    """Build the item of the tools that a server offers."""
    return {
        "id": f"mcpl_{suffix}",
        "type": "mcp_list_tools",
        "server_label": listing.label,
        "tools": [
            {
                "name": tool.name,
                "description": tool.description,
                "input_schema": dict(tool.input_schema),
                "annotations": dict(tool.annotations),
            }
            for tool in listing.tools
        ],
        "error": listing.error,
    }


def execution_error(text: str) -> McpToolExecutionError:
    """Build the error of a tool that failed, or was not run."""
    return {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text}]}


def call_output_text(item: Mapping[str, Any]) -> str:
    """Return the output of a call for the model: the text, or what went wrong."""
    error = item["error"]
    if error is None:
        return item["output"] or "" if item["status"] == "completed" else "The call was not completed."
    texts = [part.get("text") or "" for part in error.get("content") or ()]
    return "Error: " + ("\n".join(texts) if texts else error.get("message", "The call failed."))


def with_outputs(items: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the items with the outputs of calls that the server ran as items of their own, as for the caller's calls.

    The outputs follow the last of the calls that were made together: those of one step. A call that a person has denied
    becomes a call with an error.
    """
    requests: dict[str, Mapping[str, Any]] = {}
    outputs: list[Mapping[str, Any]] = []
    step = ""
    for item in map(_denied_call(requests), items):
        last_step, step = step, _step_of(item)
        if outputs and (not item["type"].endswith("_call") or (step and last_step and step != last_step)):
            yield from outputs
            outputs = []
        yield item
        if item["type"] == "mcp_call":
            text = call_output_text(item)
            outputs.append({"type": "function_call_output", "call_id": item["id"], "output": text})
    yield from outputs


def _step_of(item: Mapping[str, Any]) -> str:
    """Return the part of a call's id that the calls of one step share; empty where an id does not say it."""
    return str(item.get("id") or "").partition("_")[2].rpartition("_")[0]


def as_callers_calls(items: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the items with calls that the server ran as functions that the caller ran, without lists of tools and
    decided requests for approval.
    """
    answered = {item["approval_request_id"] for item in items if item["type"] == "mcp_approval_response"}
    for item in with_outputs(items):
        match item["type"]:
            case "mcp_call":
                name = {"name": item["name"], "namespace": item["server_label"], "arguments": item["arguments"]}
                yield {"type": "function_call", "id": item["id"], "call_id": item["id"], **name}
            case "mcp_list_tools" | "mcp_approval_response":
                continue
            case "mcp_approval_request" if item["id"] in answered:
                continue
            case _:
                yield item


def _denied_call(
    requests: dict[str, Mapping[str, Any]],
) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Return a function that remembers requests for approval, and replaces a denial by the call with an error."""

    def replace(item: Mapping[str, Any]) -> Mapping[str, Any]:
        if item["type"] == "mcp_approval_request":
            requests[item["id"]] = item
        if item["type"] != "mcp_approval_response" or item["approve"]:
            return item
        if (request := requests.get(item["approval_request_id"])) is None:
            return item
        call = {**request, "id": item["id"], "type": "mcp_call", "output": None, "status": "failed"}
        return {**call, "error": execution_error(denial_text(item.get("reason")))}

    return replace


def denial_text(reason: str | None) -> str:
    """Return what the model reads about a call that a person has denied."""
    return f"A person has denied this call: {reason}" if reason else "A person has denied this call."


def new_listings(
    response: Response, tools: TurnTools, items: Sequence[Mapping[str, Any]]
) -> Sequence[McpListToolsItem]:
    """Return the items of the tools that MCP servers offer, of those that the conversation does not have already."""
    known = {item["server_label"] for item in items if item["type"] == "mcp_list_tools"}
    suffix = response.id.removeprefix("resp_")
    return [
        list_tools_item(f"{suffix}_{number}", listing)
        for number, listing in enumerate(tools.listings)
        if listing.label not in known
    ]

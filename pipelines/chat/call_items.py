"""Items of tool calls and their outputs: their JSON in OpenAI's API, and their conversion for engines.

An output refers to its call by `call_id`, except that outputs of the local shell have it as `id` in OpenAI's API.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NotRequired

import orjson
from typing_extensions import TypedDict

from pipelines.chat.client_tools import INPUT, ClientTool, ToolType, function_name
from pipelines.chat.mcp_items import call_output_text
from pipelines.inference.engine import GeneratedCall, ToolCall

CallStatus = Literal["in_progress", "completed", "incomplete"]


class InputTextPart(TypedDict):
    """A piece of text of an input item."""

    type: Literal["input_text"]
    text: str


class InputFilePart(TypedDict):
    """A file of an input item: an uploaded one by its id, or one whose content the request had."""

    type: Literal["input_file"]
    file_id: NotRequired[str]
    file_data: NotRequired[str]
    filename: NotRequired[str]


class FunctionCallItem(TypedDict):
    """A function that the model asks the caller to run; `arguments` is JSON as text."""

    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    namespace: NotRequired[str]
    arguments: str
    status: CallStatus


class FunctionCallOutputItem(TypedDict):
    """The output of a function call."""

    id: str
    type: Literal["function_call_output"]
    call_id: str
    output: str | list[InputTextPart]
    status: CallStatus


class CustomToolCallItem(TypedDict):
    """A call of a custom tool; `input` is free text."""

    id: str
    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    namespace: NotRequired[str]
    input: str
    status: CallStatus


class CustomToolCallOutputItem(TypedDict):
    """The output of a custom tool."""

    id: str
    type: Literal["custom_tool_call_output"]
    call_id: str
    output: str | list[InputTextPart]
    status: CallStatus


class LocalShellAction(TypedDict):
    """A command for the caller's machine: a program and its arguments."""

    type: Literal["exec"]
    command: list[str]
    env: dict[str, str]
    timeout_ms: int | None
    user: str | None
    working_directory: str | None


class LocalShellCallItem(TypedDict):
    """A command that the model asks the caller to run."""

    id: str
    type: Literal["local_shell_call"]
    call_id: str
    action: LocalShellAction
    status: CallStatus


class LocalShellCallOutputItem(TypedDict):
    """The output of a command, in any form."""

    id: str
    type: Literal["local_shell_call_output"]
    call_id: str
    output: str
    status: CallStatus


class ShellAction(TypedDict):
    """Shell commands for the caller's machine."""

    commands: list[str]
    timeout_ms: int | None
    max_output_length: int | None


class ShellCallItem(TypedDict):
    """Shell commands that the model asks the caller to run."""

    id: str
    type: Literal["shell_call"]
    call_id: str
    action: ShellAction
    status: CallStatus


class ShellCallOutputItem(TypedDict):
    """The outputs of shell commands: each has `stdout`, `stderr` and an `outcome`."""

    id: str
    type: Literal["shell_call_output"]
    call_id: str
    output: list[dict[str, Any]]
    status: CallStatus


class ApplyPatchCallItem(TypedDict):
    """A change of a file that the model asks the caller to make: `type`, `path`, and except for a deletion `diff`."""

    id: str
    type: Literal["apply_patch_call"]
    call_id: str
    operation: dict[str, str]
    status: CallStatus


class ApplyPatchCallOutputItem(TypedDict):
    """The output of a file change: whether it was made, and a text of the caller."""

    id: str
    type: Literal["apply_patch_call_output"]
    call_id: str
    output: str | None
    status: Literal["completed", "failed"]


CallItem = FunctionCallItem | CustomToolCallItem | LocalShellCallItem | ShellCallItem | ApplyPatchCallItem
CallOutputItem = (
    FunctionCallOutputItem
    | CustomToolCallOutputItem
    | LocalShellCallOutputItem
    | ShellCallOutputItem
    | ApplyPatchCallOutputItem
)

#: The types of calls, and the prefixes of their ids, by the type of their tool. An output's prefix has an "o" added.
CALLS_BY_TOOL: Mapping[ToolType, tuple[str, str]] = {
    "function": ("function_call", "fc"),
    "custom": ("custom_tool_call", "ctc"),
    "local_shell": ("local_shell_call", "lsh"),
    "shell": ("shell_call", "sh"),
    "apply_patch": ("apply_patch_call", "apc"),
}

#: The prefixes of item ids by the type of the item.
ID_PREFIXES: Mapping[str, str] = {
    **dict(CALLS_BY_TOOL.values()),
    **{f"{type_}_output": f"{prefix}o" for type_, prefix in CALLS_BY_TOOL.values()},
}

#: Types of items that are calls, and that are their outputs.
CALLS = frozenset(type_ for type_, _ in CALLS_BY_TOOL.values())
OUTPUTS = frozenset(f"{type_}_output" for type_ in CALLS)

#: Calls that the server runs, whose item has their output.
SERVER_CALLS = frozenset({"mcp_call"})

#: Items of what the model has called, whether or not somebody has run it.
GENERATED_CALLS = CALLS | SERVER_CALLS | {"mcp_approval_request"}


def call_item(suffix: str, tool: ClientTool, call: GeneratedCall) -> dict[str, Any]:
    """Build the item of a generated call that the caller runs; `suffix` follows the prefixes of its ids."""
    type_, prefix = CALLS_BY_TOOL[tool.type]
    head = {"id": f"{prefix}_{suffix}", "type": type_, "call_id": f"call_{suffix}"}
    return {**head, **_call_fields(tool, call.arguments), "status": "completed"}


def tool_call(item: Mapping[str, Any]) -> ToolCall:
    """Convert the item of a call to an engine's tool call."""
    match item["type"]:
        case "function_call":
            return ToolCall(item["call_id"], function_name(item["name"], item.get("namespace")), item["arguments"])
        case "custom_tool_call":
            name = function_name(item["name"], item.get("namespace"))
            return ToolCall(item["call_id"], name, _json({INPUT: item["input"]}))
        case "mcp_call" | "mcp_approval_request":
            return ToolCall(item["id"], function_name(item["name"], item["server_label"]), item["arguments"])
        case "apply_patch_call":
            return ToolCall(item["call_id"], "apply_patch", _json({"diff": "", **item["operation"]}))
        case type_:
            arguments = {name: value for name, value in item["action"].items() if value and name != "type"}
            return ToolCall(item["call_id"], type_.removesuffix("_call"), _json(arguments))


def output_text(item: Mapping[str, Any]) -> str:
    """Return the output of a call as text: no engine reads parts."""
    output = item["output"]
    match item["type"]:
        case "mcp_call":
            return call_output_text(item)
        case "shell_call_output":
            return "\n".join(_command_text(command) for command in output)
        case "apply_patch_call_output":
            return "\n".join(text for text in (item["status"], output) if text)
        case _:
            return output if isinstance(output, str) else parts_text(output)


def parts_text(parts: Iterable[Mapping[str, Any]]) -> str:
    """Join the texts of parts."""
    return "".join(part.get("text") or "" for part in parts)


def call_events(item: Mapping[str, Any], position: Mapping[str, int]) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """Return the events of a complete call between those that add its item and end it."""
    fields = {"item_id": item["id"], **position}
    match item["type"]:
        case "function_call":
            text = item["arguments"]
            return [
                ("response.function_call_arguments.delta", {**fields, "delta": text}),
                ("response.function_call_arguments.done", {**fields, "name": item["name"], "arguments": text}),
            ]
        case "custom_tool_call":
            text = item["input"]
            return [
                ("response.custom_tool_call_input.delta", {**fields, "delta": text}),
                ("response.custom_tool_call_input.done", {**fields, "input": text}),
            ]
        case "mcp_call":
            text = item["arguments"]
            return [
                ("response.mcp_call.in_progress", fields),
                ("response.mcp_call_arguments.delta", {**fields, "delta": text}),
                ("response.mcp_call_arguments.done", {**fields, "arguments": text}),
            ]
        case "shell_call":
            commands = enumerate(item["action"]["commands"])
            return [event for number, command in commands for event in _command_events(position, number, command)]
        case _:
            return []


def in_progress_item(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the item for the event that adds it: without the text that deltas contain, and without an output."""
    if "status" not in item:
        return item
    empty: dict[str, Any] = {"output": None, "error": None} if item["type"] == "mcp_call" else {}
    empty |= {name: "" for name in ("arguments", "input") if name in item}
    return {**item, **empty, "status": "in_progress"}


def _command_events(position: Mapping[str, int], number: int, command: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    fields = {**position, "command_index": number}
    yield "response.shell_call_command.added", {**fields, "command": ""}
    yield "response.shell_call_command.delta", {**fields, "delta": command}
    yield "response.shell_call_command.done", {**fields, "command": command}


def _call_fields(tool: ClientTool, arguments: str) -> dict[str, Any]:
    named = {"name": tool.name, **({"namespace": tool.namespace} if tool.namespace else {})}
    if tool.type == "function":
        return {**named, "arguments": arguments}
    values = _object(arguments)
    match tool.type:
        case "custom":
            text = values.get(INPUT)
            return {**named, "input": text if isinstance(text, str) else arguments}
        case "local_shell":
            return {"action": _local_shell_action(values)}
        case "shell":
            action = {"commands": _texts(values.get("commands")), "timeout_ms": _number(values, "timeout_ms")}
            return {"action": {**action, "max_output_length": None}}
        case _:
            return {"operation": _operation(values)}


def _local_shell_action(values: Mapping[str, Any]) -> LocalShellAction:
    directory = values.get("working_directory")
    return {
        "type": "exec",
        "command": _texts(values.get("command")),
        "env": {},
        "timeout_ms": _number(values, "timeout_ms"),
        "user": None,
        "working_directory": directory if isinstance(directory, str) else None,
    }


def _operation(values: Mapping[str, Any]) -> dict[str, str]:
    operation = {name: str(values.get(name) or "") for name in ("type", "path", "diff")}
    if operation["type"] == "delete_file":
        del operation["diff"]
    return operation


def _command_text(command: Mapping[str, Any]) -> str:
    outcome = command.get("outcome") or {}
    code = "timed out" if outcome.get("type") == "timeout" else f"exit code {outcome.get('exit_code', 0)}"
    return "\n".join(text for text in (command.get("stdout"), command.get("stderr"), f"({code})") if text)


def _object(arguments: str) -> Mapping[str, Any]:
    """Parse the arguments of a call. Hosted engines may return any text: one that is not an object has no values."""
    try:
        value = orjson.loads(arguments)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _number(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _json(value: object) -> str:
    return orjson.dumps(value).decode()

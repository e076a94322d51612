"""Convert the tools that the caller runs to functions, the only tools that engines know.

OpenAI's API has tools of several types: functions, custom tools with a free text as input, groups of both, and the
shell and patch tools whose arguments the API defines. Each is described to the engine as a function, and
`pipelines.chat.call_items` converts its calls back.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

from pipelines.inference.engine import Tool

#: Characters of a function's name, as in OpenAI's API.
MAX_NAME = 64

#: The name of the argument that contains the input of a custom tool.
INPUT = "input"

ToolType = Literal["function", "custom", "local_shell", "shell", "apply_patch"]

#: The description of the input of a custom tool without a grammar.
FREE_TEXT = "The input is free text."


@dataclass(frozen=True, slots=True)
class ClientTool:
    """A tool of a request, and the function that describes it to the engine.

    name       the caller's name of it
    namespace  the group that it belongs to
    path       of the tool in its group: `.tools[2]`; empty outside a group
    strict     whether all of its schema has to be enforced
    """

    function: Tool
    type: ToolType
    name: str
    namespace: str | None = None
    path: str = ""
    strict: bool = False


def client_tools(tools: Sequence[Mapping[str, Any]]) -> list[ClientTool]:
    """Return the tools of a request, with groups expanded to their members."""
    return [member for tool in tools for member in expand_tool(tool)]


def expand_tool(tool: Mapping[str, Any]) -> Iterator[ClientTool]:
    """Yield a stored tool, or the members of a group. A group's description goes with its first member.

    Those of an MCP server are not known yet: for a turn they are a group, see `pipelines.agents.turn_tools`.
    """
    if tool["type"] == "mcp":
        return
    if tool["type"] != "namespace":
        yield _client_tool(tool)
        return
    heading = tool.get("description") or ""
    for number, member in enumerate(tool["tools"]):
        yield _client_tool(member, tool["name"], f".tools[{number}]", "" if number else heading)


def function_name(name: str, namespace: str | None) -> str:
    """Return the engine's name of a tool: `NAMESPACE__NAME` in a group, shortened by a digest where it is too long."""
    full = f"{namespace}__{name}" if namespace else name
    if len(full) <= MAX_NAME:
        return full
    digest = blake2b(full.encode(), digest_size=6).hexdigest()
    return f"{full[: MAX_NAME - len(digest) - 1]}_{digest}"


def chosen_function(tools: Sequence[ClientTool], choice: Mapping[str, Any]) -> str:
    """Return the engine's name of the tool that a tool choice names; the choice was checked when it was accepted."""
    name = choice.get("name") or choice["type"]
    return next((tool.function.name for tool in tools if tool.name == name), name)


def chosen_tools(tools: Sequence[ClientTool], choice: Mapping[str, Any]) -> list[ClientTool]:
    """Return the tools of an MCP server that a tool choice names: one, or all of the server."""
    label, name = choice["server_label"], choice.get("name")
    return [tool for tool in tools if tool.namespace == label and name in (None, tool.name)]


def _client_tool(
    tool: Mapping[str, Any], namespace: str | None = None, path: str = "", heading: str = ""
) -> ClientTool:
    type_: ToolType = tool["type"]
    name = tool.get("name") or type_
    description, parameters = _function(tool)
    texts = [text for text in (heading, description) if text]
    function = Tool(function_name(name, namespace), "\n\n".join(texts), parameters)
    return ClientTool(function, type_, name, namespace, path, strict=bool(tool.get("strict")))


def _function(tool: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the description and the parameters of the function that describes a tool."""
    match tool["type"]:
        case "custom":
            return _custom_function(tool)
        case "local_shell" | "shell" | "apply_patch" as type_:
            return BUILT_IN[type_]
        case _:
            return tool.get("description") or "", tool.get("parameters") or {}


def _custom_function(tool: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Describe a custom tool. A regular expression is enforced if it can be, a grammar in Lark is only described."""
    format_ = tool.get("format") or {}
    definition = format_.get("definition", "")
    string: dict[str, Any] = {"type": "string"}
    match format_.get("syntax"):
        case "regex":
            rule = f"The input matches this regular expression: {definition}"
            string["pattern"] = f"^(?:{definition})$"
        case "lark":
            rule = f"The input follows this Lark grammar:\n{definition}"
        case _:
            rule = FREE_TEXT
    description = "\n\n".join(text for text in (tool.get("description"), rule) if text)
    return description, _object({INPUT: string}, INPUT)


def _object(properties: Mapping[str, Any], *required: str) -> Mapping[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


COMMANDS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
MILLISECONDS = {"type": "integer", "minimum": 1, "description": "Milliseconds after which to stop."}

#: The functions that describe the tools whose arguments OpenAI's API defines.
BUILT_IN: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "local_shell": (
        "Run a command on the user's machine. `command` is the program and its arguments.",
        _object(
            {"command": COMMANDS, "working_directory": {"type": "string"}, "timeout_ms": MILLISECONDS}, "command"
        ),
    ),
    "shell": (
        "Run shell commands on the user's machine, one after the other.",
        _object({"commands": COMMANDS, "timeout_ms": MILLISECONDS}, "commands"),
    ),
    "apply_patch": (
        "Create, update or delete a file on the user's machine. `diff` has the lines of the new file, each after '+', "
        "or the changed sections of an existing one: '@@', then lines after ' ', '-' or '+'. A deletion has none.",
        _object(
            {
                "type": {"enum": ["create_file", "update_file", "delete_file"]},
                "path": {"type": "string"},
                "diff": {"type": "string"},
            },
            "type", "path", "diff",
        ),
    ),
}  # fmt: skip

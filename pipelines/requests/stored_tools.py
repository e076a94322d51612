"""Convert tools of a request, in either API's notation, to the form in which a turn stores and returns them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.requests.mcp_types import McpReference, McpTool, stored_mcp_tool
from pipelines.requests.tool_types import (
    ApplyPatchTool,
    CustomDefinition,
    FunctionDefinition,
    GrammarFormat,
    HostedTool,
    LocalShellTool,
    NamespaceTool,
    NestedCustomReference,
    NestedCustomTool,
    NestedFunctionReference,
    NestedFunctionTool,
    NestedGrammar,
    ShellTool,
    ToolReference,
)

#: Types of tools and references in the notation of Chat Completions.
NESTED = (NestedFunctionTool, NestedCustomTool, NestedFunctionReference, NestedCustomReference)


def stored_tool(tool: Any) -> dict[str, Any] | None:
    """Return the stored form of a tool, or None for one that nobody runs."""
    match tool:
        case McpTool():
            return stored_mcp_tool(tool)
        case HostedTool() | ShellTool(is_hosted=True):
            return None
        case NestedFunctionTool(function=FunctionDefinition() as function) | (FunctionDefinition() as function):
            return {"type": "function", "name": function.name, "description": function.description,
                    "parameters": function.parameters, "strict": bool(function.strict)}  # fmt: skip
        case NestedCustomTool(custom=CustomDefinition() as custom) | (CustomDefinition() as custom):
            return {"type": "custom", "name": custom.name, "description": custom.description,
                    "format": _format(custom.format)}  # fmt: skip
        case NamespaceTool():
            members = [stored for member in tool.tools if (stored := stored_tool(member))]
            return {"type": "namespace", "name": tool.name, "description": tool.description or "", "tools": members}
        case ShellTool():
            return {"type": "shell", "environment": {"type": "local"}}
        case LocalShellTool() | ApplyPatchTool():
            return {"type": tool.type}
    raise TypeError(f"not a tool: {type(tool).__name__}")


def definition_path(tool: Any) -> str:
    """Return the path from a tool, or a reference to one, to its definition: empty, or in Chat Completions `.TYPE`."""
    return f".{tool.type}" if isinstance(tool, NESTED) else ""


def allowed_tools(tools: Sequence[dict[str, Any]], references: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the stored tools, and the members of groups and servers, that the references name."""
    named = [*references]
    servers = [reference for reference in named if isinstance(reference, McpReference)]
    names = {reference_name(each) or each.type for each in named if not isinstance(each, McpReference)}
    narrowed = (_allowed_of_server(tool, servers) if tool["type"] == "mcp" else _allowed(tool, names) for tool in tools)
    return [tool for tool in narrowed if tool]


def reference_name(reference: Any) -> str | None:
    """Return the name in a reference to a tool; None for one that refers to it by its type."""
    match reference:
        case ToolReference(name=str(name)):
            return name
        case NestedFunctionReference(function=named) | NestedCustomReference(custom=named):
            return named.name
        case _:
            return None


def _allowed(tool: dict[str, Any], names: set[str]) -> dict[str, Any] | None:
    if tool.get("name", tool["type"]) in names:
        return tool
    members = [member for member in tool.get("tools", ()) if member["name"] in names]
    return {**tool, "tools": members} if members else None


def _allowed_of_server(tool: dict[str, Any], references: Iterable[McpReference]) -> dict[str, Any] | None:
    """Return the tool of a server with those of its allowed tools that the references name; None if they name none."""
    named = [each.name for each in references if each.server_label == tool["server_label"]]
    if not named or None in named:
        return tool if named else None
    allowed = tool.get("allowed_tools")
    filters = allowed if isinstance(allowed, dict) else {"tool_names": allowed}
    names = filters.get("tool_names")
    both = [name for name in dict.fromkeys(named) if names is None or name in names]
    return {**tool, "allowed_tools": {**filters, "tool_names": both} if isinstance(allowed, dict) else both}


def _format(format_: Any) -> Mapping[str, Any]:
    match format_:
        case GrammarFormat(syntax=str(syntax), definition=str(definition)):
            return {"type": "grammar", "syntax": syntax, "definition": definition}
        case NestedGrammar(grammar=grammar):
            return {"type": "grammar", "syntax": grammar.syntax, "definition": grammar.definition}
        case _:
            return {"type": "text"}

"""Convert tools of a request, in either API's notation, to the form in which a turn stores and returns them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from web.api.turns.tool_types import (
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
    """Return the stored form of a tool, or None for one that the caller does not run."""
    match tool:
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
    """Return the stored tools, and the members of groups, that the references name."""
    names = {reference_name(reference) or reference.type for reference in references}
    narrowed = (_allowed(tool, names) for tool in tools)
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


def _format(format_: Any) -> Mapping[str, Any]:
    match format_:
        case GrammarFormat(syntax=str(syntax), definition=str(definition)):
            return {"type": "grammar", "syntax": syntax, "definition": definition}
        case NestedGrammar(grammar=grammar):
            return {"type": "grammar", "syntax": grammar.syntax, "definition": grammar.definition}
        case _:
            return {"type": "text"}

"""Resolve the tools and the tool choice of a request, and check its JSON Schemas; the request types of text formats."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from models.platform.errors import InvalidRequest
from models.platform.texts import truncate
from pipelines.chat.client_tools import ClientTool, expand_tool
from pipelines.inference.answer_grammar import calls_error
from pipelines.inference.engine import OutputFormat
from pipelines.inference.json_schema import NamedSchema, first_schema_error
from pipelines.requests.content_types import FunctionName
from pipelines.requests.hints import Verbosity
from pipelines.requests.mcp_tools import check_mcp_tools, check_server
from pipelines.requests.mcp_types import McpReference
from pipelines.requests.stored_tools import allowed_tools, definition_path, reference_name, stored_tool
from pipelines.requests.tool_types import AllowedToolList, AllowedTools, Description, NestedAllowedTools, Schema, Tool
from pipelines.requests.validation import RequestBody, branch, discriminate_by_type


class PlainFormat(RequestBody):
    """The output is plain text."""

    type: Literal["text"]


class JsonFormat(RequestBody):
    """The output is a JSON object."""

    type: Literal["json_object"]


class SchemaFormat(RequestBody):
    """The output is JSON that matches the schema, enforced by a grammar."""

    type: Literal["json_schema"]
    name: FunctionName
    schema_: Schema = Field(alias="schema")
    description: Description | None = None
    strict: bool | None = None


Format = Annotated[
    Annotated[PlainFormat, Tag(branch("text"))]
    | Annotated[JsonFormat, Tag(branch("json_object"))]
    | Annotated[SchemaFormat, Tag(branch("json_schema"))],
    discriminate_by_type("text", "json_object", "json_schema"),
]


class TextOptions(RequestBody):
    """Options of the output text. `verbosity` is a hint, accepted without effect."""

    format: Format | None = None
    verbosity: Verbosity = None


@dataclass(frozen=True, slots=True)
class ResolvedTools:
    """The tools of a request.

    stored    those that the model may call, in the Responses API's form
    choice    the stored tool choice
    by_param  all that the caller runs as an engine knows them, by the parameter that contains each
    """

    stored: list[dict[str, Any]]
    choice: Any
    by_param: Mapping[str, ClientTool]


def resolve_tools(tools: Sequence[Tool] | None, choice: Any, *, of_agent: bool = False) -> ResolvedTools:
    """Return the tools and the tool choice of a request. Raises InvalidRequest.

    For `allowed_tools` only the allowed tools are stored, and its mode is the choice. The request of an agent may
    require tools that only the agent has.
    """
    check_mcp_tools(tools or [])
    offered = [(f"tools[{n}]{definition_path(tool)}", stored_tool(tool)) for n, tool in enumerate(tools or [])]
    by_param = _tools_by_param([(param, tool) for param, tool in offered if tool])
    offered_tools = [tool for _, tool in offered if tool]
    if of_agent and isinstance(choice, McpReference):
        return ResolvedTools(offered_tools, choice.model_dump(exclude_none=True), by_param)
    stored, choice = _resolve_choice(choice, offered_tools, by_param.values())
    if choice == "required" and not stored and not of_agent:
        raise InvalidRequest(
            "Invalid value for 'tool_choice': 'required' needs at least one tool in 'tools' that can be called.",
            param="tool_choice",
        )
    return ResolvedTools(stored, choice or "auto", by_param)


def text_parameters(text: TextOptions | None) -> dict[str, Any]:
    """Return the stored text options."""
    format_ = text.format if text and text.format else PlainFormat(type="text")
    parameters: dict[str, Any] = {"format": format_.model_dump(by_alias=True, exclude_none=True)}
    if text and text.verbosity:
        parameters["verbosity"] = text.verbosity
    return parameters


def _tools_by_param(tools: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, ClientTool]:
    """Return all tools by their parameters. Raises InvalidRequest if two would have the same name for an engine."""
    by_param: dict[str, ClientTool] = {}
    names: set[str] = set()
    for group_param, stored in tools:
        for tool in expand_tool(stored):
            param = f"{group_param}{tool.path}"
            if tool.function.name in names:
                raise _duplicate(f"{param}.{'name' if tool.type in ('function', 'custom') else 'type'}", tool)
            names.add(tool.function.name)
            by_param[param] = tool
    return by_param


def _duplicate(param: str, tool: ClientTool) -> InvalidRequest:
    message = f"Invalid value for '{param}': '{tool.function.name}' is used by another tool. Names must be unique."
    return InvalidRequest(message, param=param)


def check_schemas(schemas: Sequence[NamedSchema]) -> None:
    """Raise InvalidRequest unless a grammar can enforce all the JSON Schemas of a request, within one limit of time.

    Blocks while new schemas are compiled; call it in a thread.
    """
    if schemas and (found := first_schema_error(schemas)):
        raise _invalid_schema(*found)


def check_calls(tools: ResolvedTools, output_format: OutputFormat) -> None:
    """Raise InvalidRequest where the schemas of the tools do not compile to one grammar, though each alone does.

    Blocks while a new grammar is compiled; call it in a thread.
    """
    if (error := calls_error(output_format)) is None:
        return
    if error.tool is None:
        raise _invalid_schema("tools", f"these functions cannot be constrained together: {error.reason}")
    param = next(param for param, tool in tools.by_param.items() if tool.function.name == error.tool.name)
    raise _invalid_schema(f"{param}.parameters", error.reason)


def schemas_of(tools: ResolvedTools, text: TextOptions | None) -> list[NamedSchema]:
    """Return the JSON Schemas of a request's tools and text format. Raises InvalidRequest for arguments of a type."""
    schemas = []
    for tool_param, tool in tools.by_param.items():
        parameters = tool.function.parameters
        if parameters and tool.type in ("function", "custom"):
            param = f"{tool_param}.{'parameters' if tool.type == 'function' else 'format'}"
            if parameters.get("type", "object") != "object":
                raise _invalid_schema(param, "expected type 'object' for the arguments of a function")
            schemas.append(NamedSchema(param, parameters, strict=tool.strict))
    if text and isinstance(text.format, SchemaFormat):
        schemas.append(NamedSchema("text.format.schema", text.format.schema_, strict=text.format.strict is True))
    return schemas


def _invalid_schema(param: str, reason: str) -> InvalidRequest:
    detail = truncate(reason.partition("\n")[0].rstrip(".:"))
    return InvalidRequest(f"Invalid schema for '{param}': {detail}.", param=param, code="invalid_json_schema")


def _resolve_choice(
    choice: Any, stored: list[dict[str, Any]], tools: Collection[ClientTool]
) -> tuple[list[dict[str, Any]], Any]:
    """Return the stored tools that the model may call, and the stored choice, None for the default."""
    if isinstance(choice, AllowedTools | NestedAllowedTools):
        allowed, param = _allowed_list(choice)
        for number, reference in enumerate(allowed.tools):
            if isinstance(reference, McpReference):
                check_server(reference, stored, f"{param}.tools[{number}]")
            _require_allowed(reference, tools, f"{param}.tools[{number}]{definition_path(reference)}.name")
        return allowed_tools(stored, allowed.tools), allowed.mode
    if isinstance(choice, McpReference):
        check_server(choice, stored, "tool_choice")
        return stored, choice.model_dump(exclude_none=True)
    return stored, choice if isinstance(choice, str | None) else _require_tool(choice, tools)


def _allowed_list(choice: AllowedTools | NestedAllowedTools) -> tuple[AllowedToolList, str]:
    if isinstance(choice, NestedAllowedTools):
        return choice.allowed_tools, "tool_choice.allowed_tools"
    return choice, "tool_choice"


def _require_allowed(reference: Any, tools: Iterable[ClientTool], param: str) -> None:
    if (name := reference_name(reference)) and all(name not in (tool.name, tool.namespace) for tool in tools):
        raise _unknown_tool(name, param)


def _require_tool(reference: Any, tools: Iterable[ClientTool]) -> dict[str, Any]:
    """Return the stored reference to the one tool that has to be called. Raises InvalidRequest."""
    name = reference_name(reference)
    if name is None:
        if all(tool.type != reference.type for tool in tools):
            raise _not_run_here(reference.type)
        return {"type": reference.type}
    matching = [tool for tool in tools if tool.name == name]
    if not matching:
        raise _unknown_tool(name, f"tool_choice{definition_path(reference)}.name")
    return {"type": matching[0].type, "name": name}


def _unknown_tool(name: str, param: str) -> InvalidRequest:
    message = f"Invalid value for '{param}': '{name}' is not the name of a tool in 'tools'."
    return InvalidRequest(message, param=param)


def _not_run_here(type_: str) -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported value for 'tool_choice.type': '{truncate(type_)}'. 'tools' has no such tool that the caller "
        "runs, and this server runs none.",
        param="tool_choice.type",
        code="unsupported_value",
    )

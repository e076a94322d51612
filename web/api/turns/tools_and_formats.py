"""Request parameters for function tools, tool choice and text formats, and their validation."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from models.platform.errors import InvalidRequest
from pipelines.inference.answer_grammar import calls_error
from pipelines.inference.engine import OutputFormat
from pipelines.inference.json_schema import NamedSchema, first_schema_error
from web.api.turns.input_items import FunctionName
from web.http.validation import (
    RequestBody,
    Unsupported,
    branch,
    discriminate_by_type,
    discriminate_text,
    strict_literal,
    truncate,
)

#: Tools of one turn.
MAX_TOOLS = 128

Schema = dict[str, Any]
Description = Annotated[str, Field(max_length=16_384)]


class FunctionTool(RequestBody):
    """A function that the model may call; the caller runs it. `parameters` is the JSON Schema of its arguments."""

    type: Literal["function"]
    name: FunctionName
    description: Description | None = None
    parameters: Schema | None = None
    strict: bool | None = None
    async_: Annotated[Literal[False], strict_literal(bool)] | None = Field(None, alias="async")
    allowed_callers: list[Literal["direct"]] | None = None
    defer_loading: Annotated[Literal[False], strict_literal(bool)] | None = None
    output_schema: Unsupported = None


Tool = Annotated[Annotated[FunctionTool, Tag(branch("function"))], discriminate_by_type("function")]


class FunctionReference(RequestBody):
    """A reference to a function tool by its name."""

    type: Literal["function"]
    name: FunctionName


class AllowedTools(RequestBody):
    """A subset of the tools that the model may call; with `mode` `required` it must call one."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[
        list[Annotated[Annotated[FunctionReference, Tag(branch("function"))], discriminate_by_type("function")]],
        Field(min_length=1, max_length=MAX_TOOLS),
    ]


ToolSelection = Annotated[
    Annotated[FunctionReference, Tag(branch("function"))] | Annotated[AllowedTools, Tag(branch("allowed_tools"))],
    discriminate_by_type("function", "allowed_tools"),
]
ToolChoice = Annotated[
    Annotated[Literal["auto", "none", "required"], Tag(branch("text"))]
    | Annotated[ToolSelection, Tag(branch("other"))],
    discriminate_text("an object"),
]


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
    verbosity: Literal["low", "medium", "high"] | None = None


def resolve_tools(tools: Sequence[FunctionTool] | None, choice: Any) -> tuple[list[dict[str, Any]], Any]:
    """Return the stored tools and tool choice. Raises InvalidRequest.

    For `allowed_tools` only the allowed tools are returned, and its mode is the choice.
    """
    checked = _check_tools(tools or [])
    if isinstance(choice, AllowedTools):
        named = {
            _require_tool(tool.name, checked, f"tool_choice.tools[{n}].name") for n, tool in enumerate(choice.tools)
        }
        return [tool for tool in checked if tool["name"] in named], choice.mode
    if isinstance(choice, FunctionReference):
        return checked, {"type": "function", "name": _require_tool(choice.name, checked, "tool_choice.name")}
    if choice == "required" and not checked:
        raise InvalidRequest(
            "Invalid value for 'tool_choice': 'required' needs at least one tool in 'tools'.", param="tool_choice"
        )
    return checked, choice or "auto"


def text_parameters(text: TextOptions | None) -> dict[str, Any]:
    """Return the stored text options."""
    format_ = text.format if text and text.format else PlainFormat(type="text")
    parameters: dict[str, Any] = {"format": format_.model_dump(by_alias=True, exclude_none=True)}
    if text and text.verbosity:
        parameters["verbosity"] = text.verbosity
    return parameters


def _check_tools(tools: Sequence[FunctionTool]) -> list[dict[str, Any]]:
    names: set[str] = set()
    for position, tool in enumerate(tools):
        if tool.name in names:
            param = f"tools[{position}].name"
            raise InvalidRequest(
                f"Invalid value for '{param}': '{tool.name}' is used by another tool. Names must be unique.",
                param=param,
            )
        names.add(tool.name)
    return [_tool_object(tool) for tool in tools]


def check_schemas(schemas: Sequence[NamedSchema]) -> None:
    """Raise InvalidRequest unless a grammar can enforce all the JSON Schemas of a request, within one limit of time.

    Blocks while new schemas are compiled; call it in a thread.
    """
    if schemas and (found := first_schema_error(schemas)):
        raise _invalid_schema(*found)


def check_calls(tools: Sequence[FunctionTool] | None, output_format: OutputFormat) -> None:
    """Raise InvalidRequest where the schemas of the tools do not compile to one grammar, though each alone does.

    Blocks while a new grammar is compiled; call it in a thread.
    """
    if (error := calls_error(output_format)) is None:
        return
    if error.tool is None:
        raise _invalid_schema("tools", f"these functions cannot be constrained together: {error.reason}")
    position = [tool.name for tool in tools or []].index(error.tool.name)
    raise _invalid_schema(f"tools[{position}].parameters", error.reason)


def schemas_of(tools: Sequence[FunctionTool] | None, text: TextOptions | None) -> list[NamedSchema]:
    """Return the JSON Schemas of a request's tools and text format. Raises InvalidRequest for arguments of a type."""
    schemas = []
    for position, tool in enumerate(tools or []):
        if tool.parameters:
            param = f"tools[{position}].parameters"
            if tool.parameters.get("type", "object") != "object":
                raise _invalid_schema(param, "expected type 'object' for the arguments of a function")
            schemas.append(NamedSchema(param, tool.parameters, strict=tool.strict is True))
    if text and isinstance(text.format, SchemaFormat):
        schemas.append(NamedSchema("text.format.schema", text.format.schema_, strict=text.format.strict is True))
    return schemas


def _invalid_schema(param: str, reason: str) -> InvalidRequest:
    detail = truncate(reason.partition("\n")[0].rstrip(".:"))
    return InvalidRequest(f"Invalid schema for '{param}': {detail}.", param=param, code="invalid_json_schema")


def _tool_object(tool: FunctionTool) -> dict[str, Any]:
    return {"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters,
            "strict": bool(tool.strict)}  # fmt: skip


def _require_tool(name: str, tools: Sequence[dict[str, Any]], param: str) -> str:
    if all(tool["name"] != name for tool in tools):
        raise InvalidRequest(
            f"Invalid value for '{param}': '{name}' is not the name of a tool in 'tools'.", param=param
        )
    return name

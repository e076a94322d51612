"""What an answer may look like, as callers say it: function tools, the choice among them, and the form of a text."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from models.platform.errors import InvalidRequest
from pipelines.inference.json_schema import schema_error
from web.api.turns.items import FunctionName
from web.http.validation import (
    RequestBody,
    Unsupported,
    branch,
    discriminate_by_type,
    discriminate_text,
    strict_literal,
    truncate,
)

#: Tools that one turn may offer.
MAX_TOOLS = 128

Schema = dict[str, Any]
Description = Annotated[str, Field(max_length=16_384)]


class FunctionTool(RequestBody):
    """A function that the model may ask its caller to run. `parameters` is the JSON Schema of its arguments."""

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
    """One of the tools, by its name."""

    type: Literal["function"]
    name: FunctionName


class AllowedTools(RequestBody):
    """Some of the tools, and whether one of them must be called."""

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
    Annotated[Literal["auto", "none", "required"], Tag(branch("text"))] | Annotated[ToolSelection, Tag(branch("other"))],
    discriminate_text("an object"),
]


class PlainFormat(RequestBody):
    """Plain text."""

    type: Literal["text"]


class JsonFormat(RequestBody):
    """Any JSON object."""

    type: Literal["json_object"]


class SchemaFormat(RequestBody):
    """JSON that a schema admits; a grammar holds the model to it."""

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
    """How text is to come out. `verbosity` is a hint that no model here knows."""

    format: Format | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


def resolve_tools(tools: Sequence[FunctionTool] | None, choice: Any) -> tuple[list[dict[str, Any]], Any]:
    """The tools that a turn has, and the choice among them, in the pipeline's terms. Raises InvalidRequest.

    Of `allowed_tools` only the allowed ones are offered, and its mode is the choice.
    """
    checked = _check_tools(tools or [])
    if isinstance(choice, AllowedTools):
        named = {_require_tool(tool.name, checked, f"tool_choice.tools[{n}].name") for n, tool in enumerate(choice.tools)}
        return [tool for tool in checked if tool["name"] in named], choice.mode
    if isinstance(choice, FunctionReference):
        return checked, {"type": "function", "name": _require_tool(choice.name, checked, "tool_choice.name")}
    if choice == "required" and not checked:
        raise InvalidRequest("'tool_choice' is 'required', but there are no tools.", param="tool_choice")
    return checked, choice or "auto"


def text_parameters(text: TextOptions | None) -> dict[str, Any]:
    """The form of the text, as the response shows it. Raises InvalidRequest for a schema that no grammar can hold."""
    form = text.format if text and text.format else PlainFormat(type="text")
    shown: dict[str, Any] = {"format": form.model_dump(by_alias=True, exclude_none=True)}
    if isinstance(form, SchemaFormat):
        check_schema(form.schema_, "text.format.schema", strict=form.strict is True)
    if text and text.verbosity:
        shown["verbosity"] = text.verbosity
    return shown


def _check_tools(tools: Sequence[FunctionTool]) -> list[dict[str, Any]]:
    seen: set[str] = set()
    for position, tool in enumerate(tools):
        if tool.name in seen:
            param = f"tools[{position}].name"
            raise InvalidRequest(f"Invalid value for '{param}': two tools are named '{tool.name}'.", param=param)
        seen.add(tool.name)
        _check_parameters(tool, f"tools[{position}].parameters")
    return [_tool_object(tool) for tool in tools]


def _check_parameters(tool: FunctionTool, param: str) -> None:
    if not tool.parameters:
        return
    if tool.parameters.get("type", "object") != "object":
        raise _invalid_schema(param, "the arguments of a function should be of type 'object'")
    check_schema(tool.parameters, param, strict=tool.strict is True)


def check_schema(schema: Schema, param: str, *, strict: bool) -> None:
    """Raise InvalidRequest unless a grammar can hold an answer to the JSON Schema; `strict`: to all that it says."""
    if why := schema_error(schema, strict=strict):
        raise _invalid_schema(param, why)


def _invalid_schema(param: str, why: str) -> InvalidRequest:
    said = truncate(why.partition("\n")[0].rstrip(".:"))
    return InvalidRequest(f"Invalid schema for '{param}': {said}.", param=param, code="invalid_json_schema")


def _tool_object(tool: FunctionTool) -> dict[str, Any]:
    return {"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters,
            "strict": bool(tool.strict)}  # fmt: skip


def _require_tool(name: str, tools: Sequence[dict[str, Any]], param: str) -> str:
    if all(tool["name"] != name for tool in tools):
        raise InvalidRequest(f"Invalid value for '{param}': there is no tool '{name}'.", param=param)
    return name

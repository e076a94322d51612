"""Request parameters of chat completions, and their conversion to a `NewTurn`.

Parameters that the platform does not support are rejected by name.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag
from pydantic_core import PydanticCustomError

from models.platform.errors import InvalidRequest, NotFound
from models.platform.settings import Settings
from pipelines.chat.start_turn import NewTurn
from web.api.turns import tools_and_formats
from web.api.turns.chat.messages import ChatMessage, message_items
from web.api.turns.input_items import MAX_ITEMS, FunctionName
from web.api.turns.tools_and_formats import MAX_TOOLS, Description, Schema
from web.api.turns.turn_request import ClientLabel, CreateResponse, MemoryOptions, Metadata, StopSequences, new_turn
from web.http.validation import (
    RequestBody,
    Unsupported,
    branch,
    discriminate_by_type,
    discriminate_text,
    strict_literal,
    validate,
)


def _reject_unless_neutral(value: Any) -> Any:
    if value:
        raise PydanticCustomError("unsupported_parameter", "no model of this server supports it; omit it or send null")
    return value


#: A parameter that is not supported: only null, false, 0 and empty values are accepted.
Neutral = AfterValidator(_reject_unless_neutral)


class FunctionDefinition(RequestBody):
    """A function that the model may call; the caller runs it. `parameters` is the JSON Schema of its arguments."""

    name: FunctionName
    description: Description | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class ChatTool(RequestBody):
    """A function tool."""

    type: Literal["function"]
    function: FunctionDefinition


FunctionOnly = Annotated[Annotated[ChatTool, Tag(branch("function"))], discriminate_by_type("function")]


class ReferencedFunction(RequestBody):
    """The name of a function."""

    name: FunctionName


class ChatToolReference(RequestBody):
    """A reference to a function tool by its name."""

    type: Literal["function"]
    function: ReferencedFunction


class AllowedToolList(RequestBody):
    """A subset of the tools that the model may call; with `mode` `required` it must call one."""

    mode: Literal["auto", "required"]
    tools: Annotated[
        list[Annotated[Annotated[ChatToolReference, Tag(branch("function"))], discriminate_by_type("function")]],
        Field(min_length=1, max_length=MAX_TOOLS),
    ]


class ChatAllowedTools(RequestBody):
    """A tool choice that restricts the model to some tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedToolList


ToolSelection = Annotated[
    Annotated[ChatToolReference, Tag(branch("function"))] | Annotated[ChatAllowedTools, Tag(branch("allowed_tools"))],
    discriminate_by_type("function", "allowed_tools"),
]
ToolChoice = Annotated[
    Annotated[Literal["auto", "none", "required"], Tag(branch("text"))]
    | Annotated[ToolSelection, Tag(branch("other"))],
    discriminate_text("an object"),
]


class JsonSchema(RequestBody):
    """A named JSON Schema."""

    name: FunctionName
    schema_: Schema | None = Field(None, alias="schema")
    description: Description | None = None
    strict: bool | None = None


class ChatSchemaFormat(RequestBody):
    """The output is JSON that matches the schema, enforced by a grammar."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    Annotated[tools_and_formats.PlainFormat, Tag(branch("text"))]
    | Annotated[tools_and_formats.JsonFormat, Tag(branch("json_object"))]
    | Annotated[ChatSchemaFormat, Tag(branch("json_schema"))],
    discriminate_by_type("text", "json_object", "json_schema"),
]


class ChatStreamOptions(RequestBody):
    """Options of a stream. `include_usage` adds a last chunk with the usage; `include_obfuscation` has no effect."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class CreateChatCompletion(RequestBody):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_ITEMS)]
    model: Annotated[str, Field(max_length=256)] | None = None
    stream: bool | None = None
    stream_options: ChatStreamOptions | None = None
    max_completion_tokens: int | None = Field(None, ge=1, le=1_000_000)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: StopSequences | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    tools: Annotated[list[FunctionOnly], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    memory: MemoryOptions | None = None  # an extension of OpenAI's API
    n: Annotated[Literal[1], strict_literal(int)] | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    # Hints, accepted without effect.
    user: ClientLabel | None = None
    safety_identifier: ClientLabel | None = None
    prompt_cache_key: ClientLabel | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    prompt_cache_options: dict[str, Any] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    # Parameters that are not supported, except for values that disable them.
    logprobs: Annotated[bool | None, Neutral] = None
    top_logprobs: Annotated[int | None, Neutral] = None
    logit_bias: Annotated[dict[str, float] | None, Neutral] = None
    presence_penalty: Annotated[float | None, Neutral] = None
    frequency_penalty: Annotated[float | None, Neutral] = None
    reasoning_effort: Literal["none"] | None = None
    functions: Unsupported = None
    function_call: Unsupported = None
    prediction: Unsupported = None
    audio: Unsupported = None
    web_search_options: Unsupported = None
    moderation: Unsupported = None

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a chunk that has the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


#: The number of seeds of an engine. OpenAI's seeds are 64-bit integers.
ENGINE_SEEDS = 2**32 - 1

#: Parameters with the same name in both APIs.
SHARED_PARAMETERS = (
    "model", "stream", "metadata", "temperature", "top_p", "stop", "parallel_tool_calls", "user", "safety_identifier",
    "prompt_cache_key", "service_tier", "memory",
)  # fmt: skip

#: Names of response parameters in error messages, and the names of the same parameters here.
PARAMETER_NAMES = (
    (re.compile(r"(?<![.\w])tools\[(\d+)\]\."), r"tools[\1].function."),
    (re.compile(r"\btool_choice\.tools\[(\d+)\]\."), r"tool_choice.allowed_tools.tools[\1].function."),
    (re.compile(r"\btool_choice\.name\b"), "tool_choice.function.name"),
    (re.compile(r"\btext\.format\.schema\b"), "response_format.json_schema.schema"),
)


def chat_turn(body: CreateChatCompletion, settings: Settings) -> NewTurn:
    """Convert the body to a new turn. Raises InvalidRequest, and NotFound for an unknown model as OpenAI does here."""
    _check_combinations(body)
    try:
        return new_turn(to_response_body(body), settings)
    except InvalidRequest as error:
        error_type = NotFound if error.code == "model_not_found" else InvalidRequest
        raise error_type(
            _rename_parameters(error.message), param=_rename_parameters(error.param or "") or None, code=error.code
        ) from None


def to_response_body(body: CreateChatCompletion) -> CreateResponse:
    """Convert the body to that of `POST /v1/responses`. Raises InvalidRequest."""
    parameters = {
        "input": message_items(body.messages),
        "max_output_tokens": body.max_completion_tokens or body.max_tokens,
        "store": body.store is True,
        "seed": None if body.seed is None else body.seed % ENGINE_SEEDS,
        "tools": None if body.tools is None else [_flatten_tool(tool) for tool in body.tools],
        "tool_choice": _tool_choice(body.tool_choice),
        "text": {"format": _text_format(body.response_format), "verbosity": body.verbosity},
        **{name: getattr(body, name) for name in SHARED_PARAMETERS},
    }
    return validate(CreateResponse, parameters)


def _check_combinations(body: CreateChatCompletion) -> None:
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest(
            "Unsupported parameter: 'stream_options'. It requires 'stream': true.", param="stream_options"
        )
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise InvalidRequest(
            "Mutually exclusive parameters: 'max_completion_tokens' and 'max_tokens'. Provide only one of them.",
            param="max_tokens",
        )


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, ChatAllowedTools):
        return {"type": "allowed_tools", "mode": choice.allowed_tools.mode,
                "tools": [_flatten_tool(tool) for tool in choice.allowed_tools.tools]}  # fmt: skip
    return _flatten_tool(choice) if isinstance(choice, ChatToolReference) else choice


def _flatten_tool(tool: ChatTool | ChatToolReference) -> dict[str, Any]:
    return {"type": "function", **tool.function.model_dump()}


def _text_format(format_: Any) -> Any:
    if isinstance(format_, ChatSchemaFormat):
        parameters = format_.json_schema.model_dump(by_alias=True)
        return {"type": "json_schema", **parameters, "schema": parameters["schema"] or {}}
    return format_ and format_.model_dump()


def _rename_parameters(text: str) -> str:
    for pattern, name in PARAMETER_NAMES:
        text = pattern.sub(name, text)
    return text

"""Request parameters of chat completions, and their conversion to a `NewTurn`.

Unsupported parameters that would change the answer are rejected by name.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, Tag, ValidationInfo, model_validator

from models.platform.errors import InvalidRequest, NotFound
from pipelines.chat.new_turn import NewTurn
from pipelines.requests import tools_and_formats
from pipelines.requests.chat.messages import ChatMessage, message_items
from pipelines.requests.content_types import MAX_ITEMS, FunctionName
from pipelines.requests.hints import CacheOptions, CacheRetention, ServiceTier, Verbosity
from pipelines.requests.ignored_fields import mark_without_effect, validate_tolerantly
from pipelines.requests.sampling_parameters import Effort, SamplingParameters, TemplateParameters
from pipelines.requests.serving import Serving
from pipelines.requests.tool_types import (
    MAX_TOOLS,
    ChatTool,
    Description,
    FunctionDefinition,
    HostedTool,
    Schema,
    ToolChoice,
)
from pipelines.requests.turn_request import (
    LOGPROBS,
    ClientLabel,
    CreateResponse,
    MemoryOptions,
    Metadata,
    StopSequences,
    new_turn,
)
from pipelines.requests.validation import RequestBody, Unsupported, branch, discriminate_by_type, discriminate_text

#: Most choices of a completion.
MAX_CHOICES = 8


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


class ReferencedFunction(RequestBody):
    """The name of a function."""

    name: FunctionName


FunctionChoice = Annotated[
    Annotated[Literal["auto", "none"], Tag(branch("text"))] | Annotated[ReferencedFunction, Tag(branch("other"))],
    discriminate_text("an object"),
]


class ChatStreamOptions(RequestBody):
    """Options of a stream. `include_usage` adds a last chunk with the usage; `include_obfuscation` has no effect."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatReasoning(RequestBody):
    """Reasoning options in the notation of OpenRouter and others. OpenAI's parameter is `reasoning_effort`."""

    effort: Effort | None = None
    enabled: bool | None = None


class CreateChatCompletion(SamplingParameters, TemplateParameters):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_ITEMS)]
    model: Annotated[str, Field(max_length=256)] | None = None
    stream: bool | None = None
    stream_options: ChatStreamOptions | None = None
    max_completion_tokens: int | None = Field(None, ge=1, le=1_000_000)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    logprobs: bool | None = None
    reasoning_effort: Effort | None = None
    reasoning: ChatReasoning | None = None
    stop: StopSequences | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    tools: Annotated[list[ChatTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    # The former names of tools.
    functions: Annotated[list[FunctionDefinition], Field(max_length=MAX_TOOLS)] | None = None
    function_call: FunctionChoice | None = None
    response_format: ResponseFormat | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    # Extensions of OpenAI's API.
    memory: MemoryOptions | None = None
    residency: Literal["local", "any"] | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    best_of: int | None = Field(None, description="As many as `n`, or 1: the best of more choices is not selected.")
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    # The end user whose memories the turn uses.
    user: ClientLabel | None = None
    safety_identifier: ClientLabel | None = None
    # Hints, accepted without effect.
    prompt_cache_key: ClientLabel | None = None
    prompt_cache_retention: CacheRetention = None
    prompt_cache_options: CacheOptions = None
    service_tier: ServiceTier = None
    verbosity: Verbosity = None
    # Parameters that are not supported.
    audio: Unsupported = None
    moderation: Unsupported = None

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a chunk that has the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def calls_functions(self) -> bool:
        """Whether calls are returned as `function_call`, the former name of tool calls."""
        return bool(self.functions) and not self.tools

    def reasoning_fields(self) -> Iterable[str]:
        """Return the fields that ask for reasoning."""
        if self.reasoning_effort not in (None, "none"):
            yield "reasoning_effort"
        if self.reasoning and self.reasoning.effort not in (None, "none"):
            yield "reasoning.effort"

    def without_effect(self) -> Iterable[str]:
        """Return the parameters that another one, or its absence, makes ineffective."""
        if self.stream_options is not None and not self.stream:
            yield "stream_options"
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            yield "max_tokens"
        if self.functions and self.tools:
            yield "functions"

    @model_validator(mode="after")
    def _mark_without_effect(self, info: ValidationInfo) -> "CreateChatCompletion":
        if any(self.without_effect()):
            mark_without_effect(info)
        return self


#: The number of seeds of an engine. OpenAI's seeds are 64-bit integers.
ENGINE_SEEDS = 2**32 - 1

#: Parameters with the same name in both APIs.
SHARED_PARAMETERS = (
    "model", "stream", "metadata", "stop", "user", "safety_identifier", "prompt_cache_key", "service_tier", "memory",
    "residency", *SamplingParameters.model_fields, *TemplateParameters.model_fields,
)  # fmt: skip

#: Names of response parameters in error messages, and the names of the same parameters here.
PARAMETER_NAMES = (
    (re.compile(r"\btext\.format\.schema\b"), "response_format.json_schema.schema"),
    (re.compile(r"\bmax_output_tokens\b"), "max_completion_tokens"),
)

#: The same for requests with `functions`.
FORMER_NAMES = (
    (re.compile(r"(?<![.\w])tools\["), "functions["),
    (re.compile(r"\btool_choice\.name\b"), "function_call.name"),
)


def chat_turn(body: CreateChatCompletion, serving: Serving, choices: int = 1) -> NewTurn:
    """Convert the body to the turn of each choice. Raises InvalidRequest, and NotFound for an unknown model."""
    names = PARAMETER_NAMES + (FORMER_NAMES if body.calls_functions else ())
    try:
        return replace(new_turn(to_response_body(body), serving, choices), is_completion=body.store is True)
    except (InvalidRequest, NotFound) as error:
        message, param = _renamed(error.message, names), _renamed(error.param or "", names)
        raise type(error)(message, param=param or None, code=error.code) from None


def chat_turns(body: CreateChatCompletion, serving: Serving) -> list[NewTurn]:
    """Convert the body to the turns of its choices. Raises as `chat_turn`."""
    count = check_choices(body.n, body.best_of)
    if count > 1 and body.store:
        raise InvalidRequest(f"Unsupported value for 'n': {count}. A stored completion has one choice.", param="n",
                             code="unsupported_value")  # fmt: skip
    return turns_of_choices(chat_turn(body, serving, count), count)


def check_choices(n: int | None, best_of: int | None) -> int:
    """Return the number of choices. Raises InvalidRequest if more are to be generated than returned."""
    count = n or 1
    if best_of not in (None, 1, count):
        message = f"Unsupported value for 'best_of': {best_of}. It should be 1 or equal to 'n', which is {count}."
        raise InvalidRequest(message, param="best_of", code="unsupported_value")
    return count


def turns_of_choices(turn: NewTurn, count: int) -> list[NewTurn]:
    """Return a turn per choice. Each gets its own seed, because equal seeds would give equal answers."""
    seed = turn.request["seed"]
    if seed is None:
        return [turn] * count
    return [replace(turn, request={**turn.request, "seed": (seed + i) % ENGINE_SEEDS}) for i in range(count)]


def to_response_body(body: CreateChatCompletion) -> CreateResponse:
    """Convert the body to that of `POST /v1/responses`. Raises InvalidRequest."""
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequest("Invalid value for 'top_logprobs': it requires 'logprobs': true.", param="top_logprobs")
    parameters = {
        "input": message_items(body.messages),
        "max_output_tokens": body.max_completion_tokens or body.max_tokens,
        "store": body.store is True,
        "include": [LOGPROBS] if body.logprobs else None,
        "reasoning": _reasoning(body),
        "seed": None if body.seed is None else body.seed % ENGINE_SEEDS,
        "text": {"format": _text_format(body.response_format), "verbosity": body.verbosity},
        **{name: getattr(body, name) for name in SHARED_PARAMETERS},
        **(_functions(body) if body.calls_functions else _tools(body)),
    }
    return validate_tolerantly(CreateResponse, parameters)[0]  # it still contains tools that are ignored


def _tools(body: CreateChatCompletion) -> dict[str, Any]:
    # Responses know types of tools that chat completions ignore. Their positions are kept for errors.
    tools = None if body.tools is None else [
        {"type": "ignored"} if isinstance(tool, HostedTool) else tool.model_dump(exclude_none=True)
        for tool in body.tools
    ]  # fmt: skip
    choice = body.tool_choice if isinstance(body.tool_choice, str | None) else body.tool_choice.model_dump()
    return {"tools": tools, "tool_choice": choice, "parallel_tool_calls": body.parallel_tool_calls}


def _reasoning(body: CreateChatCompletion) -> dict[str, Any] | None:
    disabled = "none" if body.reasoning and body.reasoning.enabled is False else None
    effort = body.reasoning_effort or (body.reasoning and body.reasoning.effort) or disabled
    return {"effort": effort} if effort else None


def _functions(body: CreateChatCompletion) -> dict[str, Any]:
    """Convert functions to tools. A message has at most one function call."""
    tools = [{"type": "function", **function.model_dump()} for function in body.functions or ()]
    choice = body.function_call
    if isinstance(choice, ReferencedFunction):
        return {"tools": tools, "tool_choice": {"type": "function", "name": choice.name}, "parallel_tool_calls": False}
    return {"tools": tools, "tool_choice": choice, "parallel_tool_calls": False}


def _text_format(format_: Any) -> Any:
    if isinstance(format_, ChatSchemaFormat):
        parameters = format_.json_schema.model_dump(by_alias=True)
        return {"type": "json_schema", **parameters, "schema": parameters["schema"] or {}}
    return format_ and format_.model_dump()


def _renamed(text: str, names: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, name in names:
        text = pattern.sub(name, text)
    return text

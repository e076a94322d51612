"""Request parameters of turns, and their conversion to a `NewTurn`.

Unsupported parameters of OpenAI's API that would change the answer are rejected by name.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, StringConstraints, Tag

from models.memory.spaces import MAX_NAME
from models.platform.errors import InvalidRequest
from models.platform.settings import Settings
from models.serving.served_models import DEFAULT_ALIAS, ModelDescription
from pipelines.agents.agent_turns import is_agent
from pipelines.chat.memory_prompt import MAX_MEMORIES
from pipelines.chat.new_turn import NewTurn
from pipelines.chat.prompt import output_format_of
from pipelines.requests.content_types import Id
from pipelines.requests.hints import CacheOptions, CacheRetention, ServiceTier, only_known
from pipelines.requests.input_items import InputItems, stored_items
from pipelines.requests.mcp_tools import sealed_credentials
from pipelines.requests.sampling_parameters import (
    Effort,
    SamplingParameters,
    TemplateParameters,
    check_min_tokens,
    check_plain_text,
    logprob_limit,
    sampling_parameters,
    template_parameters,
)
from pipelines.requests.serving import Serving
from pipelines.requests.tool_types import MAX_TOOLS, Tool, ToolChoice
from pipelines.requests.tools_and_formats import (
    ResolvedTools,
    TextOptions,
    check_calls,
    check_schemas,
    resolve_tools,
    schemas_of,
    text_parameters,
)
from pipelines.requests.validation import RequestBody, Unsupported, branch, discriminate_text

#: Key-value pairs of the caller, with OpenAI's limits.
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]

#: A value of the caller that is stored and returned, but not interpreted.
ClientLabel = Annotated[str, Field(max_length=512)]

#: A sequence of characters at which generation stops.
StopSequence = Annotated[str, Field(min_length=1, max_length=256)]
StopSequences = Annotated[
    Annotated[StopSequence, Tag(branch("text"))]
    | Annotated[list[StopSequence], Field(max_length=4), Tag(branch("other"))],
    discriminate_text("a list of strings"),
]

LOGPROBS = "message.output_text.logprobs"

IncludeValue = Literal[
    "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
    "message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs",
    "reasoning.encrypted_content", "message.output_text.logprobs",
]  # fmt: skip

#: Values of OpenAI's `include`. All but LOGPROBS are accepted without effect: responses here have no such data.
Include = Annotated[list[IncludeValue], Field(max_length=16), only_known(get_args(IncludeValue))]


class ConversationReference(RequestBody):
    """A conversation, referenced by an object with its id."""

    id: Id


ConversationParameter = Annotated[
    Annotated[Id, Tag(branch("text"))] | Annotated[ConversationReference, Tag(branch("other"))],
    discriminate_text("an object"),
]


class StreamOptions(RequestBody):
    """Options of a stream. `include_obfuscation` is accepted without effect; streams are not padded."""

    include_obfuscation: bool | None = None


class Reasoning(RequestBody):
    """Options of a model's reasoning before its answer. They have no effect on a model that does not reason.

    With `summary` the whole reasoning is returned as the summary, otherwise as `content`.
    """

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn"] | None = None
    mode: Literal["standard"] | None = None


class MemoryOptions(RequestBody):
    """How a turn uses memories. `space` names their end user, and overrides `safety_identifier` and `user`;
    `recall` adds relevant memories to the prompt, at most `limit`; `remember` creates memories from the turn, if it is
    stored. Both are true by default, except for an API key with `memory` `named` where no end user is named.
    """

    space: Annotated[str, Field(min_length=1, max_length=MAX_NAME)] | None = None

    recall: bool | None = None
    remember: bool | None = None
    limit: int | None = Field(None, ge=1, le=MAX_MEMORIES)


class BackgroundOptions(RequestBody):
    """When a background response is to be complete: `soonest`, or within a time such as `2h` or `30m`, which has the
    price of background work. `continuation_id` is accepted without effect.
    """

    completion_window: Annotated[str, StringConstraints(pattern=r"^(soonest|[1-9][0-9]{0,3}[mh])$")] | None = None
    continuation_id: ClientLabel | None = None


class CompactionOptions(RequestBody):
    """When a turn compacts its conversation: if the prompt has more tokens than this, by default 3/4 of the context."""

    type: Literal["compaction"]
    compact_threshold: int | None = Field(None, ge=100, le=10_000_000)


class PromptParameters(TemplateParameters):
    """Parameters that determine a prompt, common to turns and to counting their tokens."""

    model: Annotated[str, Field(max_length=256)] | None = None
    instructions: str | None = None
    conversation: ConversationParameter | None = None
    previous_response_id: Id | None = None
    text: TextOptions | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    reasoning: Reasoning | None = None

    def reasoning_fields(self) -> Iterable[str]:
        """Return the fields that ask for reasoning."""
        if self.reasoning and self.reasoning.effort not in (None, "none"):
            yield "reasoning.effort"


class CountTokens(PromptParameters):
    """The body of `POST /v1/responses/input_tokens`."""

    input: InputItems | None = None


class CreateResponse(SamplingParameters, PromptParameters):
    """The body of `POST /v1/responses`."""

    input: InputItems
    stream: bool | None = None
    background: bool | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    max_output_tokens: int | None = Field(None, ge=1, le=1_000_000)
    max_tool_calls: int | None = Field(None, ge=1, le=1_000_000)
    context_management: Annotated[list[CompactionOptions], Field(max_length=1)] | None = None
    stream_options: StreamOptions | None = None
    include: Include | None = None
    # Extensions of OpenAI's API.
    seed: int | None = Field(None, ge=0, lt=2**32 - 1)
    stop: StopSequences | None = None
    if_busy: Literal["queue", "reject", "interrupt"] | None = None
    approvals: Literal["return", "wait"] | None = None
    residency: Literal["local", "any"] | None = None
    memory: MemoryOptions | None = None
    # The end user whose memories the turn uses.
    user: ClientLabel | None = None
    safety_identifier: ClientLabel | None = None
    background_options: BackgroundOptions | None = None
    # The tier of service, which decides the class of the price.
    service_tier: ServiceTier = None
    # Hints, accepted without effect.
    prompt_cache_key: ClientLabel | None = None
    prompt_cache_retention: CacheRetention = None
    prompt_cache_options: CacheOptions = None
    # Parameters that are not supported.
    prompt: Unsupported = None
    moderation: Unsupported = None


def new_turn(body: CreateResponse, serving: Serving, choices: int = 1) -> NewTurn:
    """Convert the body to a new turn, of which the request gets several with `choices`. Raises InvalidRequest."""
    _check_combinations(body)
    request = {
        **prompt_parameters(body, serving),
        "background": bool(body.background),
        "metadata": body.metadata or {},
        **_sampling(body, serving, choices),
        "sampling_defaults": dict(_description(body, serving).sampling_defaults),
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "context_management": _compaction_options(body),
        "store": body.store is not False,
        "memory": None if body.memory is None else body.memory.model_dump(exclude_none=True),
        "user": body.user,
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
        **({"service_tier": body.service_tier} if body.service_tier else {}),
        **_completion_window(body),
        **({"approvals": body.approvals} if body.approvals else {}),
        **({"residency": body.residency} if body.residency else {}),
        "seed": body.seed,
        "stop": [body.stop] if isinstance(body.stop, str) else body.stop or [],
    }
    return NewTurn(request, stored_items(body.input), *parse_thread(body), if_busy=body.if_busy or "queue")


def _description(body: CreateResponse, serving: Serving) -> ModelDescription:
    return serving.description(body.model) or serving.models.default.description


def _compaction_options(body: CreateResponse) -> dict[str, Any] | None:
    return {"compact_threshold": body.context_management[0].compact_threshold} if body.context_management else None


def prompt_parameters(body: PromptParameters, serving: Serving) -> dict[str, Any]:
    """Return the stored parameters that determine the prompt and the output format. Raises InvalidRequest.

    Blocks while new JSON Schemas are compiled; see `web.api.turns.conversion`.
    """
    model = serving.resolve(body.model)
    tools = resolve_tools(body.tools, body.tool_choice, of_agent=is_agent(model))
    check_schemas(schemas_of(tools, body.text))
    parameters = {
        "model": model,
        **({"any_model": True} if body.model in (None, DEFAULT_ALIAS) or is_agent(model) else {}),
        **({"engine_model": serving.models.default.id} if is_agent(model) else {}),
        "instructions": body.instructions,
        "tools": tools.stored,
        **_mcp_credentials(body, serving.settings, tools),
        "tool_choice": tools.choice,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "text": text_parameters(body.text),
        "truncation": body.truncation or "auto",
        **_reasoning(body.reasoning),
        **template_parameters(body, serving.description(body.model)),
    }
    check_calls(tools, output_format_of(parameters))
    return parameters


def _mcp_credentials(body: PromptParameters, settings: Settings, tools: ResolvedTools) -> dict[str, Any]:
    sealed = sealed_credentials(settings, body.tools or [], tools.stored)
    return {"mcp_credentials": sealed} if sealed else {}


def parse_thread(body: PromptParameters) -> tuple[str | None, str | None]:
    """Return the ids of the conversation and of the response to continue. Raises InvalidRequest if both are given."""
    conversation = body.conversation
    if conversation is not None and body.previous_response_id is not None:
        raise InvalidRequest(
            "Mutually exclusive parameters: 'conversation' and 'previous_response_id'. Provide only one of them.",
            param="previous_response_id",
        )
    conversation_id = conversation.id if isinstance(conversation, ConversationReference) else conversation
    return conversation_id, body.previous_response_id


def _completion_window(body: CreateResponse) -> dict[str, str]:
    """Return the time within which a background response is to be complete. Raises InvalidRequest for another one."""
    window = body.background_options.completion_window if body.background_options else None
    if window in (None, "soonest"):
        return {}
    if not body.background or body.stream or body.service_tier in ("priority", "fast", "ultrafast"):
        raise InvalidRequest(
            f"Unsupported value for 'background_options.completion_window': '{window}'. It needs 'background': true, "
            "and neither a stream nor a service tier with priority.",
            param="background_options.completion_window",
            code="unsupported_value",
        )
    return {"completion_window": str(window)}


def _check_combinations(body: CreateResponse) -> None:
    if body.background and body.store is False:
        raise InvalidRequest(
            "Unsupported value for 'store': false. Responses with 'background': true must be stored to be read later.",
            param="store",
            code="unsupported_value",
        )
    if body.store is False and body.memory is not None and body.memory.remember:
        raise InvalidRequest(
            "Unsupported value for 'memory.remember': true. Only responses with 'store': true are remembered.",
            param="memory.remember",
            code="unsupported_value",
        )


def _sampling(body: CreateResponse, serving: Serving, choices: int) -> dict[str, Any]:
    check_plain_text(body, body.tools or (), body.text.format.type if body.text and body.text.format else "text")
    check_min_tokens(body, body.max_output_tokens, "max_output_tokens")
    wants_logprobs = LOGPROBS in (body.include or ()) or bool(body.top_logprobs)
    parameters = sampling_parameters(body, serving.description(body.model), logprobs=wants_logprobs)
    return parameters | logprob_limit(parameters, body.max_output_tokens, choices)


def _reasoning(reasoning: Reasoning | None) -> dict[str, Any]:
    if reasoning is None:
        return {}
    summary = reasoning.summary or reasoning.generate_summary
    return {"reasoning": {"effort": reasoning.effort, "summary": summary}}

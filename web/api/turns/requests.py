"""What a caller may ask of a turn: OpenAI's parameters that a text model can honour. The rest is refused by name."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, Tag

from models.platform.errors import InvalidRequest
from models.platform.settings import Settings
from pipelines.chat.memory_prompt import MAX_MEMORIES
from pipelines.chat.start import NewTurn
from pipelines.inference.registry import model_name
from web.api.turns.forms import MAX_TOOLS, TextOptions, Tool, ToolChoice, resolve_tools, text_parameters
from web.api.turns.items import Id, InputItems, stored_items
from web.api.turns.models import DEFAULT_MODEL
from web.http.validation import RequestBody, Unsupported, branch, discriminate_text, strict_literal, truncate

#: OpenAI's own bounds for metadata.
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]

#: A name of the caller's for somebody or something, which is shown again and not looked at.
ClientLabel = Annotated[str, Field(max_length=512)]

#: A text that ends the answer.
StopSequence = Annotated[str, Field(min_length=1, max_length=256)]
StopSequences = Annotated[
    Annotated[StopSequence, Tag(branch("text"))] | Annotated[list[StopSequence], Field(max_length=4), Tag(branch("other"))],
    discriminate_text("a list of strings"),
]

LOGPROBS = "message.output_text.logprobs"

IncludeValue = Literal[
    "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
    "message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs",
    "reasoning.encrypted_content", "message.output_text.logprobs",
]  # fmt: skip

#: What more an answer is to tell. All of it is about what no answer here has: it is accepted, and there is nothing.
Include = Annotated[list[IncludeValue], Field(max_length=16)]


class ConversationReference(RequestBody):
    """A conversation, named as an object."""

    id: Id


ConversationParameter = Annotated[
    Annotated[Id, Tag(branch("text"))] | Annotated[ConversationReference, Tag(branch("other"))],
    discriminate_text("an object"),
]


class StreamOptions(RequestBody):
    """OpenAI's padding against traffic analysis; nothing here is padded."""

    include_obfuscation: bool | None = None


class Reasoning(RequestBody):
    """How a model is to think. No model here does: only what asks for nothing is accepted."""

    effort: Literal["none"] | None = None
    summary: Literal["auto"] | None = None
    generate_summary: Literal["auto"] | None = None
    context: Literal["auto"] | None = None
    mode: Literal["standard"] | None = None


class MemoryOptions(RequestBody):
    """What a turn has to do with its user's memories: both are done unless they are refused.

    recall    put what earlier conversations say to it into its prompt, at most `limit` memories
    remember  remember what is said in it, if it is stored
    """

    recall: bool | None = None
    remember: bool | None = None
    limit: int | None = Field(None, ge=1, le=MAX_MEMORIES)


class PromptParameters(RequestBody):
    """What a turn and the count of its tokens have in common."""

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


class CountTokens(PromptParameters):
    """The body of `POST /v1/responses/input_tokens`."""

    input: InputItems | None = None
    personality: Unsupported = None


class CreateResponse(PromptParameters):
    """The body of `POST /v1/responses`."""

    input: InputItems
    stream: bool | None = None
    background: bool | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_output_tokens: int | None = Field(None, ge=1, le=1_000_000)
    max_tool_calls: int | None = Field(None, ge=1, le=1_000_000)
    stream_options: StreamOptions | None = None
    include: Include | None = None
    # Sangha's own.
    seed: int | None = Field(None, ge=0, lt=2**32 - 1)
    stop: StopSequences | None = None
    if_busy: Literal["queue", "reject", "interrupt"] | None = None
    memory: MemoryOptions | None = None
    # Hints that change nothing about an answer.
    user: ClientLabel | None = None
    safety_identifier: ClientLabel | None = None
    prompt_cache_key: ClientLabel | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    prompt_cache_options: dict[str, Any] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    # What nothing here can honour.
    top_logprobs: Annotated[Literal[0], strict_literal(int)] | None = None
    prompt: Unsupported = None
    moderation: Unsupported = None
    context_management: Unsupported = None
    background_options: Unsupported = None
    access_programs: Unsupported = None
    image: Unsupported = None


def new_turn(body: CreateResponse, settings: Settings) -> NewTurn:
    """What the body asks for, in the pipeline's terms. Raises InvalidRequest."""
    _check_combinations(body)
    request = {
        **prompt_parameters(body, settings),
        "background": bool(body.background),
        "metadata": body.metadata or {},
        "temperature": body.temperature,  # None: the engine's own
        "top_p": body.top_p,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "store": body.store is not False,
        "memory": None if body.memory is None else body.memory.model_dump(exclude_none=True),
        "user": body.user,
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
        "seed": body.seed,
        "stop": [body.stop] if isinstance(body.stop, str) else body.stop or [],
    }
    place = parse_thread(body)
    return NewTurn(request, stored_items(body.input), *place, if_busy=body.if_busy or "queue")


def prompt_parameters(body: PromptParameters, settings: Settings) -> dict[str, Any]:
    """What decides the prompt and the form of the answer, beside the items. Raises InvalidRequest."""
    tools, choice = resolve_tools(body.tools, body.tool_choice)
    return {
        "model": resolve_model(body.model, settings),
        "instructions": body.instructions,
        "tools": tools,
        "tool_choice": choice,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "text": text_parameters(body.text),
        "truncation": body.truncation or "auto",
    }


def parse_thread(body: PromptParameters) -> tuple[str | None, str | None]:
    """The conversation, or the response, that the turn goes on from. Raises InvalidRequest for both."""
    conversation = body.conversation
    if conversation is not None and body.previous_response_id is not None:
        raise InvalidRequest(
            "Give either 'conversation' or 'previous_response_id', not both.", param="previous_response_id"
        )
    conversation_id = conversation.id if isinstance(conversation, ConversationReference) else conversation
    return conversation_id, body.previous_response_id


def resolve_model(name: str | None, settings: Settings) -> str:
    """The local model's own name. Raises InvalidRequest for a name that it does not answer to."""
    local = model_name(settings)
    if name not in (None, DEFAULT_MODEL, local):
        raise InvalidRequest(
            f"The model '{truncate(str(name))}' does not exist; there are '{local}' and '{DEFAULT_MODEL}'.",
            param="model",
            code="model_not_found",
        )
    return local


def _check_combinations(body: CreateResponse) -> None:
    if body.background and body.store is False:
        raise InvalidRequest(
            "A response in the background is read later, and so must be stored: 'store' can't be false.",
            param="store",
            code="unsupported_value",
        )
    if body.store is False and body.memory is not None and body.memory.remember:
        raise InvalidRequest(
            "A response that is not stored is not remembered: 'memory.remember' can't be true.",
            param="memory.remember",
            code="unsupported_value",
        )
    if LOGPROBS in (body.include or ()):
        raise InvalidRequest(
            f"Unsupported value for 'include': '{LOGPROBS}'; no engine here tells log probabilities.",
            param="include",
            code="unsupported_value",
        )

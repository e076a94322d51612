"""The JSON of turns, conversations, models and health as it goes out, for the schema of the API."""

from typing import Any, Literal

from typing_extensions import TypedDict

from models.turns.responses import Status

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class InputTextPart(TypedDict):
    """A piece of text that went in."""

    type: Literal["input_text"]
    text: str


class OutputTextPart(TypedDict):
    """A piece of text that came out."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[Any]


class MessageItem(TypedDict):
    """A message."""

    id: str
    type: Literal["message"]
    role: Literal["user", "assistant", "system", "developer"]
    status: ItemStatus
    content: list[InputTextPart | OutputTextPart]


class FunctionCallItem(TypedDict):
    """A function that the model asks its caller to run; `arguments` is JSON as text."""

    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    status: ItemStatus


class FunctionCallOutputItem(TypedDict):
    """What the function said."""

    id: str
    type: Literal["function_call_output"]
    call_id: str
    output: str | list[InputTextPart]
    status: ItemStatus


ItemObject = MessageItem | FunctionCallItem | FunctionCallOutputItem


class ConversationId(TypedDict):
    """A conversation, by its id."""

    id: str


class InputTokensDetails(TypedDict):
    """Tokens that the engine still held."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(TypedDict):
    """No model here thinks apart from its answer."""

    reasoning_tokens: int


class UsageObject(TypedDict):
    """The tokens of a turn."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ErrorObject(TypedDict):
    """Why a turn failed: `code` is of OpenAI's closed list, `reason` is ours."""

    code: str
    message: str
    reason: str


class IncompleteDetails(TypedDict):
    """Why an answer is not whole."""

    reason: str


class RecalledMemory(TypedDict):
    """A memory that went into a prompt; `text` is cut where it is long."""

    id: str
    kind: Literal["episode", "fact", "insight"]
    speaker: str
    occurred_at: str
    text: str
    score: float


class ResponseObject(TypedDict):
    """A turn."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Status
    background: bool
    conversation: ConversationId | None
    error: ErrorObject | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    model: str
    output: list[MessageItem | FunctionCallItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    recalled: list[RecalledMemory]
    safety_identifier: str | None
    seed: int | None
    service_tier: Literal["default"]
    stop: list[str]
    store: bool
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_p: float | None
    truncation: Literal["auto", "disabled"]
    usage: UsageObject | None
    user: str | None
    job_id: str


class ResponseDeleted(TypedDict):
    """A turn is forgotten."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputTokens(TypedDict):
    """The tokens of a prompt."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class ConversationObject(TypedDict):
    """A conversation."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


class ConversationDeleted(TypedDict):
    """A conversation is forgotten."""

    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]


class ModelObject(TypedDict):
    """A name that a turn may ask for."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str

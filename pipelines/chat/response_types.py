"""OpenAI's response object and its items, as types. `pipelines.chat.response_objects` builds them.

They are also the OpenAPI schema of the routes: a new field is added to its type and to the function that builds it.
"""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from models.turns.responses import ResponseStatus
from pipelines.chat.call_items import CallItem, CallOutputItem, InputFilePart, InputTextPart
from pipelines.chat.mcp_items import McpApprovalRequestItem, McpApprovalResponseItem, McpCallItem, McpListToolsItem
from pipelines.chat.service_tiers import ServedTier

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputTextPart(TypedDict):
    """A piece of text of an output item."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[Any]


class MessageItem(TypedDict):
    """A message of a user, an assistant or the system. The client's `name` and `phase` are returned."""

    id: str
    type: Literal["message"]
    role: Literal["user", "assistant", "system", "developer"]
    status: ItemStatus
    content: list[InputTextPart | InputFilePart | OutputTextPart]
    name: NotRequired[str]
    phase: NotRequired[Literal["commentary", "final_answer"]]


class ReasoningTextPart(TypedDict):
    """A text that a model wrote before its answer."""

    type: Literal["reasoning_text"]
    text: str


class SummaryTextPart(TypedDict):
    """The text of reasoning if the request asks for a summary. It is not shortened."""

    type: Literal["summary_text"]
    text: str


class ReasoningItem(TypedDict):
    """Reasoning before an answer: as `content`, or as `summary` where the request asks for one."""

    id: str
    type: Literal["reasoning"]
    summary: list[SummaryTextPart]
    content: list[ReasoningTextPart]
    status: ItemStatus


class CompactionItem(TypedDict):
    """A replacement of the part of a conversation before it. Only this server reads `encrypted_content`."""

    id: str
    type: Literal["compaction"]
    encrypted_content: str


OutputItem = (
    MessageItem | ReasoningItem | CallItem | CompactionItem | McpCallItem | McpListToolsItem | McpApprovalRequestItem
)
ItemObject = OutputItem | CallOutputItem | McpApprovalResponseItem


class ResponseConversation(TypedDict):
    """The conversation of a response."""

    id: str


class InputTokensDetails(TypedDict):
    """Details of the input tokens: `cached_tokens` were still in the engine's cache."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(TypedDict):
    """Details of the output tokens: `reasoning_tokens` are those of reasoning, also where its text is not known."""

    reasoning_tokens: int


class ResponseUsage(TypedDict):
    """The tokens of a turn."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(TypedDict):
    """Why a turn failed: `code` is one of OpenAI's closed list, `reason` is Sangha's own code."""

    code: str
    message: str
    reason: str


class IncompleteDetails(TypedDict):
    """Why an answer is incomplete."""

    reason: str


class RecalledMemory(TypedDict):
    """A memory that was added to the prompt. `start` is the first character of the passage of a long memory that was
    quoted. The last three fields are those of the memory as it is now, a long `text` truncated, or null if it was
    deleted. Events do not have them."""

    id: str
    kind: Literal["episode", "fact", "insight"]
    score: float
    start: NotRequired[int]
    speaker: str | None
    occurred_at: str | None
    text: str | None


class ResponseReasoning(TypedDict):
    """The reasoning options of a turn."""

    effort: str | None
    summary: str | None


class WaitingObject(TypedDict):
    """What a queued turn waits for, as in the event `sangha:engine.waiting`."""

    position: int | None
    predicted_wait: float | None
    reason: str


class RouteObject(TypedDict):
    """The way of a turn that was moved between a local model and an endpoint. `endpoint` and `model` are null once it
    has come back; `reason` is that of its last move."""

    endpoint: str | None
    model: str | None
    reason: str | None
    moves: int


class ResponseExtension(TypedDict):
    """What OpenAI's API does not have. `waiting`: of a queued response that does not begin at once; `route`: of a turn
    that was moved."""

    route: NotRequired[RouteObject]
    waiting: NotRequired[WaitingObject]


class ResponseObject(TypedDict):
    """A response: the status, output and usage of one turn. Times are in Unix seconds.

    The sampling parameters are those in effect: where the request has none, the engine's defaults.
    """

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: ResponseStatus
    background: bool
    conversation: ResponseConversation | None
    error: ResponseError | None
    frequency_penalty: float
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    presence_penalty: float
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ResponseReasoning
    recalled: list[RecalledMemory]
    safety_identifier: str | None
    seed: int | None
    service_tier: ServedTier
    stop: list[str]
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None
    user: str | None
    job_id: str
    sangha: NotRequired[ResponseExtension]

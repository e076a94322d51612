"""What a caller may ask of a turn: OpenAI's parameters that a text model can honour. The rest is refused by name."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from models.errors import InvalidRequest
from models.ids import new_id
from models.settings import Settings
from pipelines.chat.start import NewTurn
from pipelines.inference.names import model_name
from web.models import DEFAULT
from web.validation import Body

#: OpenAI's own bounds for metadata.
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]

#: Messages that one turn may bring.
MOST_ITEMS = 1000


class TextPart(Body):
    """A piece of text, as it goes in or as it came out."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class InputMessage(Body):
    """A message. An item of an earlier response's output can be given back as it is."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[TextPart]
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: str | None = None


class ConversationReference(Body):
    """A conversation, named as an object."""

    id: str


class PlainFormat(Body):
    """Plain text: the only format so far."""

    type: Literal["text"]


class TextOptions(Body):
    """How text is to come out."""

    format: PlainFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class StreamOptions(Body):
    """OpenAI's padding against traffic analysis; nothing here is padded."""

    include_obfuscation: bool | None = None


class CreateResponse(Body):
    """The body of `POST /v1/responses`."""

    input: str | Annotated[list[InputMessage], Field(min_length=1, max_length=MOST_ITEMS)]
    model: str | None = None
    instructions: str | None = None
    conversation: str | ConversationReference | None = None
    previous_response_id: str | None = None
    stream: bool | None = None
    background: bool | None = None
    metadata: Metadata | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_output_tokens: int | None = Field(None, ge=1, le=1_000_000)
    user: str | None = Field(None, max_length=512)
    text: TextOptions | None = None
    truncation: Literal["auto"] | None = None
    store: Literal[True] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: bool | None = None
    stream_options: StreamOptions | None = None
    # Hints that change nothing about an answer.
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


def new_turn(body: CreateResponse, settings: Settings) -> NewTurn:
    """What the body asks for, in the pipeline's terms. Raises InvalidRequest."""
    conversation = body.conversation
    if conversation is not None and body.previous_response_id is not None:
        raise InvalidRequest(
            "Give either 'conversation' or 'previous_response_id', not both.", param="previous_response_id"
        )
    request = {
        "model": checked_model(body.model, settings),
        "instructions": body.instructions,
        "background": bool(body.background),
        "metadata": body.metadata or {},
        "temperature": body.temperature,  # None: the engine's own
        "top_p": body.top_p,
        "max_output_tokens": body.max_output_tokens,
        "user": body.user,
    }
    conversation_id = conversation.id if isinstance(conversation, ConversationReference) else conversation
    return NewTurn(request, input_items(body.input), conversation_id, body.previous_response_id)


def checked_model(name: str | None, settings: Settings) -> str:
    """The local model's own name. Raises InvalidRequest for a name that it does not answer to."""
    local = model_name(settings)
    if name not in (None, DEFAULT, local):
        raise InvalidRequest(
            f"The model '{name}' does not exist; there are '{local}' and '{DEFAULT}'.",
            param="model",
            code="model_not_found",
        )
    return local


def input_items(given: str | list[InputMessage]) -> list[dict[str, Any]]:
    """The input as the message items that are stored."""
    if isinstance(given, str):
        return [_item("user", [given])]
    return [
        _item(message.role, [message.content] if isinstance(message.content, str) else
              [part.text for part in message.content]) for message in given
    ]  # fmt: skip


def _item(role: str, texts: list[str]) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    extra: dict[str, Any] = {"annotations": [], "logprobs": []} if role == "assistant" else {}
    content = [{"type": kind, "text": text, **extra} for text in texts]
    return {"id": new_id("msg"), "type": "message", "role": role, "status": "completed", "content": content}

"""Input items: messages, function calls, their outputs, and references to earlier items.

Types that a text model cannot read, such as images, are rejected. Output items of a response are accepted unchanged.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from web.http.validation import RequestBody, Unsupported, branch, discriminate_by_type, discriminate_text

#: Input items of one turn.
MAX_ITEMS = 1000

ItemStatus = Literal["in_progress", "completed", "incomplete"]
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Id = Annotated[str, Field(min_length=1, max_length=128)]


class InputText(RequestBody):
    """A part of a message: text of the input."""

    type: Literal["input_text"]
    text: str
    prompt_cache_breakpoint: dict[str, Any] | None = Field(None, description="A hint, accepted without effect.")


class PlainText(RequestBody):
    """A part of a message: text, in the notation of Chat Completions."""

    type: Literal["text"]
    text: str


class OutputText(RequestBody):
    """A part of a message: text of an earlier output. Annotations and log probabilities are ignored."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class Refusal(RequestBody):
    """A part of a message: the refusal of a model. It becomes text of the prompt."""

    type: Literal["refusal"]
    refusal: str


ContentPart = Annotated[
    Annotated[InputText, Tag(branch("input_text"))]
    | Annotated[OutputText, Tag(branch("output_text"))]
    | Annotated[Refusal, Tag(branch("refusal"))]
    | Annotated[PlainText, Tag(branch("text"))],
    discriminate_by_type("input_text", "output_text", "refusal", "text"),
]
Content = Annotated[
    Annotated[str, Tag(branch("text"))]
    | Annotated[list[ContentPart], Field(max_length=MAX_ITEMS), Tag(branch("other"))],
    discriminate_text("a list of content parts"),
]


class InputMessage(RequestBody):
    """A message. Messages of an earlier output can be sent unchanged."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: str | None = None
    status: ItemStatus | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class FunctionCall(RequestBody):
    """A function call of an earlier output."""

    type: Literal["function_call"]
    call_id: Id
    name: FunctionName
    arguments: str
    id: str | None = None
    status: ItemStatus | None = None
    caller: Unsupported = None
    namespace: Unsupported = None


OutputPart = Annotated[Annotated[InputText, Tag(branch("input_text"))], discriminate_by_type("input_text")]


class FunctionCallOutput(RequestBody):
    """The output of a function call."""

    type: Literal["function_call_output"]
    call_id: Id
    output: Annotated[
        Annotated[str, Tag(branch("text"))]
        | Annotated[list[OutputPart], Field(max_length=MAX_ITEMS), Tag(branch("other"))],
        discriminate_text("a list of content parts"),
    ]
    id: str | None = None
    name: FunctionName | None = None
    status: ItemStatus | None = None
    caller: Unsupported = None
    namespace: Unsupported = None


class ReasoningItem(RequestBody):
    """Reasoning of another model. It is accepted, so that outputs can be sent unchanged, and ignored."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: list[Any] | None = None
    content: list[Any] | None = None
    encrypted_content: str | None = None
    status: ItemStatus | None = None


class ItemReference(RequestBody):
    """A reference to an item of the account by its id."""

    type: Literal["item_reference"] | None = None
    id: Id


ITEM_TYPES = ("message", "function_call", "function_call_output", "reasoning", "item_reference")

Item = Annotated[
    Annotated[InputMessage, Tag(branch("message"))]
    | Annotated[FunctionCall, Tag(branch("function_call"))]
    | Annotated[FunctionCallOutput, Tag(branch("function_call_output"))]
    | Annotated[ReasoningItem, Tag(branch("reasoning"))]
    | Annotated[ItemReference, Tag(branch("item_reference"))],
    discriminate_by_type(
        *ITEM_TYPES,
        infer_type=lambda value: "item_reference" if value.keys() <= {"id", "type"} and value else "message",
    ),
]
InputItems = Annotated[
    Annotated[str, Tag(branch("text"))]
    | Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS), Tag(branch("other"))],
    discriminate_text("a list of items"),
]


def stored_items(input_items: str | Sequence[Item]) -> list[dict[str, Any]]:
    """Convert input to stored items without ids. References are not resolved, reasoning is dropped."""
    if isinstance(input_items, str):
        return [_message("user", [input_items])]
    items = [_stored_item(item) for item in input_items]
    return [item for item in items if item]


def _stored_item(item: Item) -> dict[str, Any]:
    match item:
        case InputMessage(role=role, content=str(text)):
            return _message(role, [text])
        case InputMessage(role=role, content=list(parts)):
            return _message(role, [part.refusal if isinstance(part, Refusal) else part.text for part in parts])
        case FunctionCall():
            return {**_fields(item, "call_id", "name", "arguments"), "status": "completed"}
        case FunctionCallOutput(output=output):
            content = output if isinstance(output, str) else [_input_text(part.text) for part in output]
            return {**_fields(item, "call_id"), "output": content, "status": "completed"}
        case ItemReference(id=item_id):
            return {"type": "item_reference", "id": item_id}
        case _:
            return {}


def _fields(item: FunctionCall | FunctionCallOutput, *names: str) -> dict[str, Any]:
    return {"type": item.type, **{name: getattr(item, name) for name in names}}


def _input_text(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def _message(role: str, texts: Sequence[str]) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    extra: dict[str, Any] = {"annotations": [], "logprobs": []} if role == "assistant" else {}
    content = [{"type": kind, "text": text, **extra} for text in texts]
    return {"type": "message", "role": role, "status": "completed", "content": content}

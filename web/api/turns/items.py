"""Items as callers give them: messages, function calls and their outputs, references to earlier items.

What a text model can't read, such as a picture, is refused by its type. Items come in OpenAI's two forms of a message,
and as they went out: an item of an answer can be given back as it is.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from web.http.validation import RequestBody, Unsupported, branch, discriminate_by_type, discriminate_text

#: Items that one turn may bring.
MAX_ITEMS = 1000

ItemStatus = Literal["in_progress", "completed", "incomplete"]
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Id = Annotated[str, Field(min_length=1, max_length=128)]


class InputText(RequestBody):
    """A piece of text that goes in."""

    type: Literal["input_text"]
    text: str
    prompt_cache_breakpoint: dict[str, Any] | None = Field(None, description="A hint; nothing here needs it.")


class PlainText(RequestBody):
    """The same, as some clients name it."""

    type: Literal["text"]
    text: str


class OutputText(RequestBody):
    """A piece of text that came out. Its annotations and log probabilities are not read."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class Refusal(RequestBody):
    """What a model said where it would not answer: text to the next one."""

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
    Annotated[str, Tag(branch("text"))] | Annotated[list[ContentPart], Field(max_length=MAX_ITEMS), Tag(branch("other"))],
    discriminate_text("a list of content parts"),
]


class InputMessage(RequestBody):
    """A message. An item of an earlier answer can be given back as it is."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: str | None = None
    status: ItemStatus | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class FunctionCall(RequestBody):
    """A call that the model asked for, given back."""

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
    """What the function said to a call."""

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
    """Thoughts of another model. They are accepted so that an answer can be given back whole, and left out."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: list[Any] | None = None
    content: list[Any] | None = None
    encrypted_content: str | None = None
    status: ItemStatus | None = None


class ItemReference(RequestBody):
    """An item of the account's, named by its id."""

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
        *ITEM_TYPES, infer_type=lambda value: "item_reference" if value.keys() <= {"id", "type"} and value else "message"
    ),
]
InputItems = Annotated[
    Annotated[str, Tag(branch("text"))]
    | Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS), Tag(branch("other"))],
    discriminate_text("a list of items"),
]


def stored_items(given: str | Sequence[Item]) -> list[dict[str, Any]]:
    """The items as they are stored, but for their ids; references are still to be followed."""
    if isinstance(given, str):
        return [_message("user", [given])]
    shown = [_stored_item(item) for item in given]
    return [item for item in shown if item]


def _stored_item(item: Item) -> dict[str, Any]:
    match item:
        case InputMessage(role=role, content=str(text)):
            return _message(role, [text])
        case InputMessage(role=role, content=list(parts)):
            return _message(role, [part.refusal if isinstance(part, Refusal) else part.text for part in parts])
        case FunctionCall():
            return {**_fields(item, "call_id", "name", "arguments"), "status": "completed"}
        case FunctionCallOutput(output=output):
            told = output if isinstance(output, str) else [_input_text(part.text) for part in output]
            return {**_fields(item, "call_id"), "output": told, "status": "completed"}
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

"""The messages of a chat, and the items that they are to a turn."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from models.platform.errors import InvalidRequest
from web.api.turns.items import MAX_ITEMS, Id, FunctionName
from web.http.validation import RequestBody, Unsupported, branch, discriminate_by_type, discriminate_text


class TextPart(RequestBody):
    """A piece of text."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: dict[str, Any] | None = Field(None, description="A hint; nothing here needs it.")


class RefusalPart(RequestBody):
    """What a model said where it would not answer: text to the next one."""

    type: Literal["refusal"]
    refusal: str


Part = Annotated[Annotated[TextPart, Tag(branch("text"))], discriminate_by_type("text")]
Content = Annotated[
    Annotated[str, Tag(branch("text"))]
    | Annotated[list[Part], Field(min_length=1, max_length=MAX_ITEMS), Tag(branch("other"))],
    discriminate_text("a list of content parts"),
]  # fmt: skip
AssistantPart = Annotated[
    Annotated[TextPart, Tag(branch("text"))] | Annotated[RefusalPart, Tag(branch("refusal"))],
    discriminate_by_type("text", "refusal"),
]
AssistantContent = Annotated[
    Annotated[str, Tag(branch("text"))]
    | Annotated[list[AssistantPart], Field(max_length=MAX_ITEMS), Tag(branch("other"))],
    discriminate_text("a list of content parts"),
]


class SystemMessage(RequestBody):
    """What the model is told to be."""

    role: Literal["system", "developer"]
    content: Content
    name: Unsupported = None


class UserMessage(RequestBody):
    """What somebody says to the model."""

    role: Literal["user"]
    content: Content
    name: Unsupported = None


class CalledFunction(RequestBody):
    """A function and its arguments, a JSON object as text."""

    name: FunctionName
    arguments: str
    parsed_arguments: Any = Field(None, description="What OpenAI's client has put beside it. Not read.")


class ToolCall(RequestBody):
    """A call that the model asked for, given back."""

    id: Id
    type: Literal["function"]
    function: CalledFunction
    index: int | None = Field(None, description="Left over from a stream. Not read.")


class AssistantMessage(RequestBody):
    """What the model said: it can be given back as it came."""

    role: Literal["assistant"]
    content: AssistantContent | None = None
    refusal: str | None = None
    tool_calls: Annotated[
        list[Annotated[Annotated[ToolCall, Tag(branch("function"))], discriminate_by_type("function")]], Field(max_length=MAX_ITEMS)
    ] | None = None  # fmt: skip
    annotations: list[Any] | None = Field(None, description="Not read.")
    parsed: Any = Field(None, description="What OpenAI's client has put beside it. Not read.")
    name: Unsupported = None
    audio: Unsupported = None
    function_call: Unsupported = None


class ToolMessage(RequestBody):
    """What a function said to a call. Its name, which the call has too, is not read."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Id
    name: FunctionName | None = None


class UnknownRoleMessage(RequestBody):
    """What has none of the roles, for the sake of an error that says so."""

    role: Literal["system", "developer", "user", "assistant", "tool"]


ROLES = ("system", "developer", "user", "assistant", "tool")


def _branch_by_role(value: Any) -> str:
    role = value.get("role") if isinstance(value, Mapping) else getattr(value, "role", None)
    return branch(role) if role in ROLES[2:] else branch("system") if role in ROLES else branch("other")


ChatMessage = Annotated[
    Annotated[SystemMessage, Tag(branch("system"))]
    | Annotated[UserMessage, Tag(branch("user"))]
    | Annotated[AssistantMessage, Tag(branch("assistant"))]
    | Annotated[ToolMessage, Tag(branch("tool"))]
    | Annotated[UnknownRoleMessage, Tag(branch("other"))],
    Discriminator(_branch_by_role),
]


def message_items(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The messages as items of a turn's input. Raises InvalidRequest for calls without answers, and the reverse."""
    _check_calls(messages)
    found = [item for message in messages for item in _items(message)]
    if len(found) > MAX_ITEMS:
        raise InvalidRequest(f"Messages and calls are {len(found)}; {MAX_ITEMS} are allowed.", param="messages")
    return found


def _items(message: ChatMessage) -> Iterator[dict[str, Any]]:
    match message:
        case SystemMessage() | UserMessage():
            yield _message(message.role, "input_text", _texts(message.content))
        case AssistantMessage():
            said = [text for text in (*_texts(message.content or ""), message.refusal) if text]
            if said:
                yield _message("assistant", "output_text", said)
            for call in message.tool_calls or ():
                function = call.function
                yield {"type": "function_call", "call_id": call.id, "name": function.name,
                       "arguments": function.arguments}  # fmt: skip
        case ToolMessage():
            output = "".join(_texts(message.content))
            yield {"type": "function_call_output", "call_id": message.tool_call_id, "output": output}


def _message(role: str, kind: str, texts: Sequence[str]) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text} for text in texts]}


def _texts(content: str | Sequence[TextPart | RefusalPart]) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [part.refusal if isinstance(part, RefusalPart) else part.text for part in content]


def _check_calls(messages: Sequence[ChatMessage]) -> None:
    """Every call is answered right after it, once, and nothing else is: a chat template has no place for the rest."""
    open_calls: set[str] = set()
    for place, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in open_calls:
                _reject(place, f"no 'tool_calls' before it has the unanswered id '{message.tool_call_id}'",
                        "tool_call_id")  # fmt: skip
            open_calls.remove(message.tool_call_id)
            continue
        _check_answered(open_calls, place)
        open_calls = {call.id for call in message.tool_calls or ()} if isinstance(message, AssistantMessage) else set()
    _check_answered(open_calls, len(messages))


def _check_answered(open_calls: set[str], place: int) -> None:
    if open_calls:
        missing = ", ".join(f"'{call_id}'" for call_id in sorted(open_calls))
        _reject(place, f"messages with role 'tool' should first answer the calls {missing}", "role")


def _reject(place: int, why: str, field: str) -> None:
    param = f"messages[{place}].{field}"
    raise InvalidRequest(f"Invalid value for '{param}': {why}.", param=param, code="invalid_value")

"""Messages of chat completions, and their conversion to input items."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NoReturn

from pydantic import Discriminator, Field, Tag

from models.platform.errors import InvalidRequest
from pipelines.requests.content_types import MAX_ITEMS, AuthorName, FunctionName, Id
from pipelines.requests.file_parts import FilePart, input_file
from pipelines.requests.validation import RequestBody, Unsupported, branch, discriminate_by_type, discriminate_text


class TextPart(RequestBody):
    """A part of a message: text."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: dict[str, Any] | None = Field(None, description="A hint, accepted without effect.")


class RefusalPart(RequestBody):
    """A part of a message: the refusal of a model. It becomes text of the prompt."""

    type: Literal["refusal"]
    refusal: str


Part = Annotated[Annotated[TextPart, Tag(branch("text"))], discriminate_by_type("text")]
Content = Annotated[
    Annotated[str, Tag(branch("text"))]
    | Annotated[list[Part], Field(min_length=1, max_length=MAX_ITEMS), Tag(branch("other"))],
    discriminate_text("a list of content parts"),
]  # fmt: skip
UserPart = Annotated[
    Annotated[TextPart, Tag(branch("text"))] | Annotated[FilePart, Tag(branch("file"))],
    discriminate_by_type("text", "file"),
]
UserContent = Annotated[
    Annotated[str, Tag(branch("text"))]
    | Annotated[list[UserPart], Field(min_length=1, max_length=MAX_ITEMS), Tag(branch("other"))],
    discriminate_text("a list of content parts"),
]
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
    """Instructions for the model."""

    role: Literal["system", "developer"]
    content: Content
    name: AuthorName = None


class UserMessage(RequestBody):
    """A message of the user."""

    role: Literal["user"]
    content: UserContent
    name: AuthorName = None


class CalledFunction(RequestBody):
    """A called function and its arguments, a JSON object as a string."""

    name: FunctionName
    arguments: str
    parsed_arguments: Any = Field(None, description="Added by OpenAI's client. Ignored.")


class ToolCall(RequestBody):
    """A tool call of an earlier answer."""

    id: Id
    type: Literal["function"]
    function: CalledFunction
    index: int | None = Field(None, description="Added by streams. Ignored.")


class CalledCustomTool(RequestBody):
    """A called custom tool and its input."""

    name: FunctionName
    input: str


class CustomToolCall(RequestBody):
    """A call of a custom tool, of an earlier answer."""

    id: Id
    type: Literal["custom"]
    custom: CalledCustomTool
    index: int | None = Field(None, description="Added by streams. Ignored.")


AnyToolCall = Annotated[
    Annotated[ToolCall, Tag(branch("function"))] | Annotated[CustomToolCall, Tag(branch("custom"))],
    discriminate_by_type("function", "custom"),
]


class AssistantMessage(RequestBody):
    """An earlier answer of the model, which can be sent unchanged."""

    role: Literal["assistant"]
    content: AssistantContent | None = None
    refusal: str | None = None
    reasoning_content: str | None = Field(None, description="The reasoning before it, for the prompts of its turn.")
    reasoning: str | None = Field(None, description="Another name of `reasoning_content`.")
    tool_calls: Annotated[list[AnyToolCall], Field(max_length=MAX_ITEMS)] | None = None
    annotations: list[Any] | None = Field(None, description="Ignored.")
    parsed: Any = Field(None, description="Added by OpenAI's client. Ignored.")
    name: AuthorName = None
    audio: Unsupported = None
    function_call: CalledFunction | None = Field(None, description="The former name of a single tool call.")


class ToolMessage(RequestBody):
    """The output of a tool call. `name` is ignored."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Id
    name: str | None = None


class FunctionMessage(RequestBody):
    """The output of a `function_call`."""

    role: Literal["function"]
    content: Content | None
    name: str


class UnknownRoleMessage(RequestBody):
    """A message with an unknown role, which validation rejects with the list of roles."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]


#: Tool calls without output that an error message names: a message may have up to MAX_ITEMS of them.
MAX_NAMED_CALLS = 5

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def _branch_by_role(value: Any) -> str:
    role = value.get("role") if isinstance(value, Mapping) else getattr(value, "role", None)
    return branch(role) if role in ROLES[2:] else branch("system") if role in ROLES else branch("other")


ChatMessage = Annotated[
    Annotated[SystemMessage, Tag(branch("system"))]
    | Annotated[UserMessage, Tag(branch("user"))]
    | Annotated[AssistantMessage, Tag(branch("assistant"))]
    | Annotated[ToolMessage, Tag(branch("tool"))]
    | Annotated[FunctionMessage, Tag(branch("function"))]
    | Annotated[UnknownRoleMessage, Tag(branch("other"))],
    Discriminator(_branch_by_role),
]


def message_items(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Convert messages to input items. Raises InvalidRequest for a tool call without output, and the reverse."""
    messages = with_tool_calls(messages)
    _check_calls(messages)
    custom = {call.id for message in messages for call in _calls(message) if isinstance(call, CustomToolCall)}
    items = [item for index, message in enumerate(messages) for item in _items(message, custom, f"messages[{index}]")]
    if len(items) > MAX_ITEMS:
        raise InvalidRequest(
            f"'messages' is too long: {len(items)} messages and tool calls, the maximum is {MAX_ITEMS}.",
            param="messages",
        )
    return items


def with_tool_calls(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Convert `function_call` and its output, the former names of a tool call and its output. Raises InvalidRequest."""
    converted: list[ChatMessage] = []
    open_call: str | None = None
    for index, message in enumerate(messages):
        match message:
            case AssistantMessage(function_call=CalledFunction() as function, tool_calls=None | []):
                open_call = f"call_function_{index}"
                call = ToolCall(id=open_call, type="function", function=function, index=None)
                converted.append(message.model_copy(update={"tool_calls": [call]}))
            case FunctionMessage():
                if open_call is None:
                    _reject(index, "expected an earlier message with 'function_call'", "role")
                output = ToolMessage(role="tool", content=message.content or "", tool_call_id=open_call)
                converted, open_call = [*converted, output], None
            case _:
                converted.append(message)
    return converted


def _calls(message: ChatMessage) -> Sequence[ToolCall | CustomToolCall]:
    return message.tool_calls or () if isinstance(message, AssistantMessage) else ()


def _items(message: ChatMessage, custom: Collection[str], param: str) -> Iterator[dict[str, Any]]:
    match message:
        case SystemMessage():
            yield _message(message.role, message.name, _text_parts("input_text", _texts(message.content)))
        case UserMessage():
            yield _message(message.role, message.name, _user_parts(message.content, f"{param}.content"))
        case AssistantMessage():
            if reasoning := message.reasoning_content or message.reasoning:
                yield {"type": "reasoning", "content": [{"type": "reasoning_text", "text": reasoning}]}
            texts = [text for text in (*_texts(message.content or ""), message.refusal) if text]
            if texts:
                yield _message("assistant", message.name, _text_parts("output_text", texts))
            yield from map(_call_item, _calls(message))
        case ToolMessage():
            kind = "custom_tool_call" if message.tool_call_id in custom else "function_call"
            output = "".join(_texts(message.content))
            yield {"type": f"{kind}_output", "call_id": message.tool_call_id, "output": output}


def _call_item(call: ToolCall | CustomToolCall) -> dict[str, Any]:
    if isinstance(call, CustomToolCall):
        return {"type": "custom_tool_call", "call_id": call.id, "name": call.custom.name, "input": call.custom.input}
    function = call.function
    return {"type": "function_call", "call_id": call.id, "name": function.name, "arguments": function.arguments}


def _message(role: str, name: str | None, content: Sequence[Any]) -> dict[str, Any]:
    return {"type": "message", "role": role, "name": name, "content": content}


def _user_parts(content: str | Sequence[TextPart | FilePart], param: str) -> list[Any]:
    if isinstance(content, str):
        return _text_parts("input_text", [content])
    return [
        input_file(part, f"{param}[{index}].file")
        if isinstance(part, FilePart)
        else {"type": "input_text", "text": part.text}
        for index, part in enumerate(content)
    ]


def _text_parts(kind: str, texts: Sequence[str]) -> list[Any]:
    return [{"type": kind, "text": text} for text in texts]


def _texts(content: str | Sequence[TextPart | RefusalPart]) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [part.refusal if isinstance(part, RefusalPart) else part.text for part in content]


def _check_calls(messages: Sequence[ChatMessage]) -> None:
    """Require one output for each tool call, directly after it. Chat templates cannot express anything else."""
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in open_calls:
                _reject(index, f"'{message.tool_call_id}' is not the id of an earlier tool call without output",
                        "tool_call_id")  # fmt: skip
            open_calls.remove(message.tool_call_id)
            continue
        _check_answered(open_calls, index)
        open_calls = {call.id for call in _calls(message)}
    _check_answered(open_calls, len(messages))


def _check_answered(open_calls: set[str], index: int) -> None:
    if open_calls:
        missing = _name_calls(open_calls)
        _reject(index, f"expected messages with role 'tool' for the preceding tool calls {missing}", "role")


def _name_calls(call_ids: set[str]) -> str:
    """List the first MAX_NAMED_CALLS ids, and the number of the others."""
    named = ", ".join(f"'{call_id}'" for call_id in sorted(call_ids)[:MAX_NAMED_CALLS])
    others = len(call_ids) - MAX_NAMED_CALLS
    return f"{named} and {others} more" if others > 0 else named


def _reject(index: int, reason: str, field: str) -> NoReturn:
    param = f"messages[{index}].{field}"
    raise InvalidRequest(f"Invalid value for '{param}': {reason}.", param=param, code="invalid_value")

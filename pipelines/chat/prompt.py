"""What the engine is asked: the instructions, what was said before, and what this turn brings."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.platform.database import Connection
from models.turns import conversations, responses
from models.turns.responses import Response
from pipelines.chat.response_objects import item_text
from pipelines.inference.context import fit_messages
from pipelines.inference.engine import PLAIN_TEXT, Engine, Message, OutputFormat, Sampling, Tool, ToolCall

#: How far back a turn looks: items of a conversation, turns of a chain. What the context can't hold is dropped anyway.
MAX_HISTORY = 500

#: Tokens kept free for an answer whose length the caller left open.
DEFAULT_ANSWER_TOKENS = 512

ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def assemble_messages(connection: Connection, response: Response) -> list[Message]:
    """The whole conversation as it stands for this turn, whatever its length."""
    instructions = response.request["instructions"]
    begin = [Message("system", instructions)] if instructions else []
    return [*begin, *_messages([*_history(connection, response), *response.input])]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine is asked.

    form     what the answer may look like
    tokens   of the messages, with the chat template applied
    dropped  messages that the engine's context could not hold
    longest  the most tokens that the answer may have
    """

    messages: list[Message]
    output_format: OutputFormat
    tokens: int
    dropped: int
    max_output_tokens: int


def fit_prompt(engine: Engine, messages: list[Message], request: Mapping[str, Any]) -> Prompt:
    """What of the conversation the engine's context can hold. Raises PermanentFailure("context_length_exceeded")."""
    most, output_format = request["max_output_tokens"], output_format_of(request)
    reserve = min(most or DEFAULT_ANSWER_TOKENS, DEFAULT_ANSWER_TOKENS, engine.context // 4)
    fitting = fit_messages(engine, messages, reserve, output_format, truncate=request.get("truncation") != "disabled")
    room = engine.context - fitting.tokens
    dropped = len(messages) - len(fitting.messages)
    return Prompt(fitting.messages, output_format, fitting.tokens, dropped, min(most or room, room))


def output_format_of(request: Mapping[str, Any]) -> OutputFormat:
    """What a request's answer may look like."""
    tools: Sequence[Mapping[str, Any]] = request.get("tools") or ()
    asked = request.get("tool_choice") or "auto"
    choice: Any = asked if isinstance(asked, str) else ("function", asked["name"])
    format_ = (request.get("text") or {}).get("format") or {}
    schema = {"json_object": {}, "json_schema": format_.get("schema", {})}.get(format_.get("type", "text"))
    if not tools and schema is None:
        return PLAIN_TEXT
    return OutputFormat(
        tools=tuple(Tool(tool["name"], tool.get("description") or "", tool.get("parameters") or {}) for tool in tools),
        tool_choice=choice,
        parallel=request.get("parallel_tool_calls") is not False,
        schema=schema,
    )


def sampling_of(request: Mapping[str, Any], left: int) -> Sampling:
    """How a request's tokens are picked, when it may have so many more."""
    return Sampling(
        max_output_tokens=left,
        temperature=request["temperature"],
        top_p=request["top_p"],
        seed=request.get("seed"),
        stop=tuple(request.get("stop") or ()),
    )


def _history(connection: Connection, response: Response) -> list[dict[str, Any]]:
    if response.conversation_id:
        # A turn that died left its items there; replayed, it does not ask its own question twice.
        return conversations.last_items(
            connection, response.conversation_id, response.account_id, MAX_HISTORY, except_response_id=response.id
        )
    if response.previous_id:
        return responses.chain_items(connection, response.previous_id, response.account_id, MAX_HISTORY)
    return []


def _messages(items: Iterable[Mapping[str, Any]]) -> Iterator[Message]:
    """Messages of items. Calls that follow an assistant's text, or each other, are one message."""
    called: set[str] = set()
    begun: Message | None = None
    for item in items:
        match item["type"]:
            case "message":
                following = Message(ROLES[item["role"]], item_text(item))
            case "function_call":
                called.add(item["call_id"])
                call = ToolCall(item["call_id"], item["name"], item["arguments"])
                if begun is not None and begun.role == "assistant":
                    begun = replace(begun, calls=(*begun.calls, call))
                    continue
                following = Message("assistant", "", (call,))
            case "function_call_output" if item["call_id"] in called:
                following = Message("tool", item["output"], call_id=item["call_id"])
            case _:  # a result whose call lies too far back to be told
                continue
        if begun is not None:
            yield begun
        begun = following
    if begun is not None:
        yield begun

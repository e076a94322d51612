"""What the engine is asked: the instructions, what was said before, and what this turn brings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from models import conversations, responses
from models.database import Connection
from models.responses import Response
from pipelines.chat.objects import text_of
from pipelines.inference.context import fit
from pipelines.inference.engine import Engine, Message

#: How far back a turn looks: items of a conversation, turns of a chain. What the context can't hold is dropped anyway.
LONGEST_HISTORY = 500

#: Tokens kept free for an answer whose length the caller left open.
USUAL_ANSWER = 512

ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def assemble(connection: Connection, response: Response) -> list[Message]:
    """The whole conversation as it stands for this turn, whatever its length."""
    instructions = response.request["instructions"]
    begin = [Message("system", instructions)] if instructions else []
    return [*begin, *_messages(_history(connection, response)), *_messages(response.input)]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine is asked.

    tokens   of the messages, with the chat template applied
    dropped  messages that the engine's context could not hold
    longest  the most tokens that the answer may have
    """

    messages: list[Message]
    tokens: int
    dropped: int
    longest: int


def fitted(engine: Engine, messages: list[Message], max_output_tokens: int | None) -> Prompt:
    """What of the conversation the engine's context can hold. Raises PermanentFailure("context_length_exceeded")."""
    reserve = min(max_output_tokens or USUAL_ANSWER, USUAL_ANSWER, engine.context // 4)
    fitting = fit(engine, messages, reserve)
    room = engine.context - fitting.tokens
    dropped = len(messages) - len(fitting.messages)
    return Prompt(fitting.messages, fitting.tokens, dropped, min(max_output_tokens or room, room))


def _history(connection: Connection, response: Response) -> list[dict[str, Any]]:
    if response.conversation_id:
        # A turn that died left its items there; replayed, it does not ask its own question twice.
        return conversations.last_items(
            connection, response.conversation_id, response.account_id, LONGEST_HISTORY, but=response.id
        )
    if response.previous_id:
        return responses.chain_items(connection, response.previous_id, response.account_id, LONGEST_HISTORY)
    return []


def _messages(items: Iterable[Mapping[str, Any]]) -> list[Message]:
    return [Message(ROLES[item["role"]], text_of(item)) for item in items if item["type"] == "message"]

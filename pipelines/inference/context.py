"""Make a conversation fit the engine's context by forgetting its oldest turns."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from models.platform.errors import PermanentFailure
from pipelines.inference.engine import PLAIN_TEXT, Engine, Message, OutputFormat


@dataclass(frozen=True, slots=True)
class FittedMessages:
    """The messages that fit, and their tokens with the chat template applied."""

    messages: list[Message]
    tokens: int


def fit_messages(
    engine: Engine,
    messages: Sequence[Message],
    reserve: int,
    output_format: OutputFormat = PLAIN_TEXT,
    *,
    forget: bool = True,
) -> FittedMessages:
    """Drop the oldest turns, each whole, until the prompt and `reserve` tokens for the answer fit the context.

    A turn is a user message with what follows it, up to the next user message behind which no call of the turn is
    answered. System messages and the last turn always stay, and the order is kept. A conversation that fits is counted
    once, another about log2(turns) times more.

    Raises PermanentFailure(code="context_length_exceeded") when the system messages and the last turn don't fit, or
    when all of it doesn't and nothing is to be forgotten.
    """
    whole = engine.count(messages, output_format)
    if whole + reserve <= engine.context:
        return FittedMessages(list(messages), whole)
    if not forget:
        raise _too_long(engine, "the conversation takes", whole, reserve)
    turns = _turns(messages)

    def since(turn: int) -> list[Message]:
        return [
            message for message, its in zip(messages, turns, strict=True) if its >= turn or message.role == "system"
        ]

    @cache
    def tokens(turn: int) -> int:
        return engine.count(since(turn), output_format)

    candidates = range(1, max(turns, default=0) + 1)
    found = bisect_left(candidates, True, key=lambda turn: tokens(turn) + reserve <= engine.context)
    if found == len(candidates):
        last = tokens(max(turns, default=0))
        raise _too_long(engine, "the last message and its instructions take", last, reserve)
    return FittedMessages(since(candidates[found]), tokens(candidates[found]))


def _turns(messages: Sequence[Message]) -> list[int]:
    """The turn of each message; what comes before a user is turn 0. A call and its result are never apart."""
    made = {call.id: at for at, message in enumerate(messages) for call in message.calls}
    joined = {
        between
        for at, message in enumerate(messages)
        if message.role == "tool"
        for between in range(made.get(message.call_id or "", at), at)
    }
    return list(accumulate(message.role == "user" and at not in joined for at, message in enumerate(messages)))


def _too_long(engine: Engine, what: str, tokens: int, reserve: int) -> PermanentFailure:
    asked = f"{what} {tokens} tokens and the answer up to {reserve}"
    return PermanentFailure(f"{asked}, but {engine.name} holds {engine.context}", code="context_length_exceeded")

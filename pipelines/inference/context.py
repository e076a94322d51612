"""Make a conversation fit the engine's context by forgetting its oldest turns."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from models.errors import PermanentFailure
from pipelines.inference.engine import Engine, Message


@dataclass(frozen=True, slots=True)
class Fitting:
    """The messages that fit, and their tokens with the chat template applied."""

    messages: list[Message]
    tokens: int


def fit(engine: Engine, messages: Sequence[Message], reserve: int) -> Fitting:
    """Drop the oldest turns, each whole, until the prompt and `reserve` tokens for the answer fit the context.

    A turn is a user message with what follows it, up to the next user message. System messages and the last turn
    always stay, and the order is kept. A conversation that fits is counted once, another about log2(turns) times more.

    Raises PermanentFailure(code="context_length_exceeded") when the system messages and the last turn don't fit.
    """
    whole = engine.count(messages)
    if whole + reserve <= engine.context:
        return Fitting(list(messages), whole)
    turns = list(accumulate(message.role == "user" for message in messages))  # what comes before a user is turn 0

    def since(turn: int) -> list[Message]:
        return [
            message for message, its in zip(messages, turns, strict=True) if its >= turn or message.role == "system"
        ]

    @cache
    def tokens(turn: int) -> int:
        return engine.count(since(turn))

    candidates = range(1, max(turns, default=0) + 1)
    found = bisect_left(candidates, True, key=lambda turn: tokens(turn) + reserve <= engine.context)
    if found == len(candidates):
        raise _too_long(engine, tokens(max(turns, default=0)), reserve)
    return Fitting(since(candidates[found]), tokens(candidates[found]))


def _too_long(engine: Engine, tokens: int, reserve: int) -> PermanentFailure:
    asked = f"the last message and its instructions take {tokens} tokens and the answer up to {reserve}"
    return PermanentFailure(f"{asked}, but {engine.name} holds {engine.context}", code="context_length_exceeded")

"""Fit a conversation into the engine's context by dropping its oldest turns."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from models.platform.errors import PermanentFailure
from pipelines.inference.engine import PLAIN_TEXT, Engine, Message, OutputFormat


@dataclass(frozen=True, slots=True)
class FittedMessages:
    """The messages that fit, and their number of tokens with the chat template applied."""

    messages: list[Message]
    tokens: int


def fit_messages(
    engine: Engine,
    messages: Sequence[Message],
    reserve: int,
    output_format: OutputFormat = PLAIN_TEXT,
    *,
    truncate: bool = True,
) -> FittedMessages:
    """Drop the oldest turns, each whole, until the prompt and `reserve` tokens for the answer fit into the context.

    A turn is a user message with all that follows it, up to the next user message; a call and its result are never
    separated. System messages and the last turn always stay, and the order is kept. A conversation that fits is counted
    once, another about log2(turns) more times.

    Raises PermanentFailure(code="context_length_exceeded") when the system messages and the last turn do not fit, or
    without `truncate` when the conversation does not.
    """
    total = count_if_it_may_fit(engine, messages, output_format)
    if total + reserve <= engine.context:
        return FittedMessages(list(messages), total)
    if not truncate:
        raise _too_long(engine, "The conversation takes", total, reserve)
    turns = _turns(messages)

    def messages_from(turn: int) -> list[Message]:
        return [
            message
            for message, number in zip(messages, turns, strict=True)
            if number >= turn or message.role == "system"
        ]

    @cache
    def count_from(turn: int) -> int:
        return count_if_it_may_fit(engine, messages_from(turn), output_format)

    candidates = range(1, max(turns, default=0) + 1)
    first_fitting = bisect_left(candidates, True, key=lambda turn: count_from(turn) + reserve <= engine.context)
    if first_fitting == len(candidates):
        total = count_from(max(turns, default=0))
        raise _too_long(engine, "The last message and its instructions take", total, reserve)
    return FittedMessages(messages_from(candidates[first_fitting]), count_from(candidates[first_fitting]))


def count_tokens(engine: Engine, messages: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
    """Count all messages. Raises PermanentFailure(code="context_length_exceeded") when they are far too long."""
    total = count_if_it_may_fit(engine, messages, output_format)
    if isinstance(total, AtLeast):
        raise _too_long(engine, "The conversation takes", total, 0)
    return total


class AtLeast(int):
    """A lower bound of a number of tokens, beyond the context."""


def count_if_it_may_fit(engine: Engine, messages: Sequence[Message], output_format: OutputFormat) -> int:
    """Count the tokens, or return AtLeast for a prompt of megabytes, which would take seconds to count.

    So would one of many empty messages, at 0.3 ms each; a chat template writes at least a token for each message.
    """
    if len(messages) > engine.context:
        return AtLeast(len(messages))
    bound = engine.min_tokens(messages, output_format)
    return AtLeast(bound) if bound > engine.context else engine.count(messages, output_format)


def _turns(messages: Sequence[Message]) -> list[int]:
    """Return the number of each message's turn; messages before the first user message have 0."""
    call_positions = {call.id: position for position, message in enumerate(messages) for call in message.calls}
    reached, number, numbers = len(messages), 0, list[int]()
    # Backwards: a message is inside calls if a later result's call precedes it. Takes linear time.
    inside = [False] * len(messages)
    for position in range(len(messages) - 1, -1, -1):
        inside[position] = reached <= position
        if messages[position].role == "tool":
            reached = min(reached, call_positions.get(messages[position].call_id or "", position))
    for message, is_inside in zip(messages, inside, strict=True):
        number += message.role == "user" and not is_inside
        numbers.append(number)
    return numbers


def _too_long(engine: Engine, what: str, tokens: int, reserve: int) -> PermanentFailure:
    number = f"at least {tokens}" if isinstance(tokens, AtLeast) else tokens
    needed = f"{what} {number} tokens" + (f" and the answer up to {reserve}" if reserve else "")
    return PermanentFailure(
        f"{needed}, but {engine.name} has a context of {engine.context}", code="context_length_exceeded"
    )

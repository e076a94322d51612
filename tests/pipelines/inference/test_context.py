"""Forgetting the oldest turns: what stays, what goes, and how often tokens are counted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.platform.errors import PermanentFailure
from pipelines.inference.context import fit_messages
from pipelines.inference.engine import PLAIN_TEXT, EngineOutput, Message, OutputFormat, Sampling, ToolCall


class Counting:
    """An engine whose tokens are characters, with three more a message for its template."""

    name, continues, slots = "counting", True, 1

    def __init__(self, context: int) -> None:
        self.context = context
        self.counted = 0

    def count(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        self.counted += 1
        return sum(len(message.content) + 3 for message in prompt)

    def generate(
        self,
        prompt: Sequence[Message],
        *,
        prefix: str,
        sampling: Sampling,
        cancelled: Callable[[], bool],
        output_format: OutputFormat = PLAIN_TEXT,
        calls: Sequence[ToolCall] = (),
    ) -> Iterator[EngineOutput]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


messages = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text("ab", max_size=20))
conversations = st.lists(messages, min_size=1, max_size=30)


def turns(conversation: Sequence[Message]) -> int:
    return sum(message.role == "user" for message in conversation)


def last_turn(conversation: Sequence[Message]) -> list[Message]:
    start = max((at for at, message in enumerate(conversation) if message.role == "user"), default=0)
    return list(conversation[start:])


@given(conversations, st.integers(1, 300), st.integers(0, 100))
def test_what_fits_keeps_all_that_it_can(conversation: list[Message], context: int, reserve: int) -> None:
    engine = Counting(context)
    systems = [message for message in conversation if message.role == "system"]
    try:
        kept = fit_messages(engine, conversation, reserve).messages
    except PermanentFailure:
        # Then not even the system messages and the last turn would fit
        said = [message for message in last_turn(conversation) if message.role != "system"]
        assert engine.count([*systems, *said]) + reserve > context
        return
    # Then it fits, and keeps every system message and the last turn
    assert engine.count(kept) + reserve <= context
    assert [m for m in kept if m.role == "system"] == systems
    assert kept[-len(last_turn(conversation)) :] == last_turn(conversation)
    # And what isn't a system message is a whole ending of the conversation, beginning with a user
    said, stayed = ([m for m in part if m.role != "system"] for part in (conversation, kept))
    assert stayed == said[len(said) - len(stayed) :]
    assert len(stayed) == len(said) or stayed[0].role == "user"
    # And one turn more would not have fitted
    if len(stayed) < len(said):
        more = next(at for at in range(len(said) - len(stayed) - 1, -1, -1) if at == 0 or said[at].role == "user")
        assert engine.count(systems + said[more:]) + reserve > context


@given(conversations, st.integers(1, 300))
def test_it_counts_seldom(conversation: list[Message], context: int) -> None:
    engine = Counting(context)
    with suppress(PermanentFailure):
        fit_messages(engine, conversation, 0)
    assert engine.counted <= 3 + log2(turns(conversation) + 1)


def test_a_conversation_that_fits_is_counted_once() -> None:
    engine = Counting(100)
    conversation = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert fit_messages(engine, conversation, 10).messages == conversation
    assert engine.counted == 1


def test_the_error_has_the_numbers() -> None:
    with pytest.raises(PermanentFailure, match="13 tokens and the answer up to 5, but counting holds 12") as caught:
        fit_messages(Counting(12), [Message("user", "old"), Message("user", "a" * 10)], 5)
    assert caught.value.code == "context_length_exceeded"


def test_a_call_is_never_kept_without_its_result_nor_forgotten_without_it() -> None:
    # Given a user who speaks between a call and its result
    called = Message("assistant", "", (ToolCall("1", "f", "{}"),))
    result = Message("tool", "x" * 10, call_id="1")
    conversation = [Message("user", "old" * 9), Message("user", "a"), called, Message("user", "b"), result]
    # When the oldest has to go
    kept = fit_messages(Counting(40), [*conversation, Message("user", "c")], 0).messages
    # Then call and result go or stay together
    assert kept == [*conversation[1:], Message("user", "c")]
    assert fit_messages(Counting(20), [*conversation, Message("user", "c")], 0).messages == [Message("user", "c")]


def test_nothing_is_forgotten_where_the_caller_wants_all_of_it() -> None:
    conversation = [Message("user", "old" * 9), Message("user", "a")]
    assert fit_messages(Counting(20), conversation, 0).messages == conversation[1:]
    with pytest.raises(PermanentFailure, match="the conversation takes 34 tokens") as caught:
        fit_messages(Counting(20), conversation, 0, forget=False)
    assert caught.value.code == "context_length_exceeded"

"""Which turns are dropped from a conversation that is too long, and how often its tokens are counted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.platform.errors import PermanentFailure
from pipelines.inference.context import count_tokens, fit_messages
from pipelines.inference.engine import PLAIN_TEXT, EngineOutput, Message, OutputFormat, Sampling, ToolCall


class CharacterEngine:
    """An engine whose tokens are characters, and three more a message for its template."""

    name, reasons, continues, counts_exactly, slots = "characters", False, True, True, 1

    def __init__(self, context: int) -> None:
        self.context = context
        self.counted = 0
        self.bound = 0

    def count(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        self.counted += 1
        return sum(len(message.content) + 3 for message in prompt)

    def min_tokens(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        return self.bound

    def generate(
        self,
        prompt: Sequence[Message],
        *,
        prefix: str,
        sampling: Sampling,
        cancelled: Callable[[], bool],
        output_format: OutputFormat = PLAIN_TEXT,
        reasoning: str = "",
        calls: Sequence[ToolCall] = (),
        cache_owner: str | None = None,
    ) -> Iterator[EngineOutput]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


messages = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text("ab", max_size=20))
conversations = st.lists(messages, min_size=1, max_size=30)


def turns(conversation: Sequence[Message]) -> int:
    return sum(message.role == "user" for message in conversation)


def last_turn(conversation: Sequence[Message]) -> list[Message]:
    start = max((position for position, message in enumerate(conversation) if message.role == "user"), default=0)
    return list(conversation[start:])


@given(conversations, st.integers(1, 300), st.integers(0, 100))
def test_as_many_turns_are_kept_as_fit(conversation: list[Message], context: int, reserve: int) -> None:
    engine = CharacterEngine(context)
    systems = [message for message in conversation if message.role == "system"]
    try:
        kept = fit_messages(engine, conversation, reserve).messages
    except PermanentFailure:
        # Then not even the system messages and the last turn fit
        texts = [message for message in last_turn(conversation) if message.role != "system"]
        assert engine.count([*systems, *texts]) + reserve > context
        return
    # Then the result fits, and keeps every system message and the last turn
    assert engine.count(kept) + reserve <= context
    assert [m for m in kept if m.role == "system"] == systems
    assert kept[-len(last_turn(conversation)) :] == last_turn(conversation)
    # And the other messages are an end of the conversation that begins with a user's
    texts, kept_texts = ([m for m in part if m.role != "system"] for part in (conversation, kept))
    assert kept_texts == texts[len(texts) - len(kept_texts) :]
    assert len(kept_texts) == len(texts) or kept_texts[0].role == "user"
    # And one more turn would not fit
    if len(kept_texts) < len(texts):
        more = next(
            position
            for position in range(len(texts) - len(kept_texts) - 1, -1, -1)
            if position == 0 or texts[position].role == "user"
        )
        assert engine.count(systems + texts[more:]) + reserve > context


@given(conversations, st.integers(1, 300))
def test_tokens_are_counted_about_log2_times(conversation: list[Message], context: int) -> None:
    engine = CharacterEngine(context)
    with suppress(PermanentFailure):
        fit_messages(engine, conversation, 0)
    assert engine.counted <= 3 + log2(turns(conversation) + 1)


def test_a_conversation_that_fits_is_counted_once() -> None:
    engine = CharacterEngine(100)
    conversation = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert fit_messages(engine, conversation, 10).messages == conversation
    assert engine.counted == 1


def test_the_error_has_the_token_counts() -> None:
    with pytest.raises(
        PermanentFailure, match="13 tokens and the answer up to 5, but characters has a context of 12"
    ) as caught:
        fit_messages(CharacterEngine(12), [Message("user", "old"), Message("user", "a" * 10)], 5)
    assert caught.value.code == "context_length_exceeded"


def test_a_call_and_its_result_are_kept_or_dropped_together() -> None:
    # Given a user message between a call and its result
    called = Message("assistant", "", (ToolCall("1", "f", "{}"),))
    result = Message("tool", "x" * 10, call_id="1")
    conversation = [Message("user", "old" * 9), Message("user", "a"), called, Message("user", "b"), result]
    # When the oldest turn has to be dropped
    kept = fit_messages(CharacterEngine(40), [*conversation, Message("user", "c")], 0).messages
    # Then call and result are dropped or kept together
    assert kept == [*conversation[1:], Message("user", "c")]
    assert fit_messages(CharacterEngine(20), [*conversation, Message("user", "c")], 0).messages == [
        Message("user", "c")
    ]


def test_without_truncation_a_long_conversation_is_rejected() -> None:
    conversation = [Message("user", "old" * 9), Message("user", "a")]
    assert fit_messages(CharacterEngine(20), conversation, 0).messages == conversation[1:]
    with pytest.raises(PermanentFailure, match="The conversation takes 34 tokens") as caught:
        fit_messages(CharacterEngine(20), conversation, 0, truncate=False)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("truncate", [True, False])
def test_what_cannot_fit_is_rejected_without_counting_it(truncate: bool) -> None:
    # Given a prompt with more tokens than the context by any count
    engine = CharacterEngine(100)
    engine.bound = 101

    # When it is fitted, or counted
    with pytest.raises(PermanentFailure, match="at least 101 tokens") as fitted:
        fit_messages(engine, [Message("user", "a"), Message("user", "b")], 10, truncate=truncate)
    with pytest.raises(PermanentFailure, match="at least 101 tokens") as counted:
        count_tokens(engine, [Message("user", "a")])

    # Then it is refused at once
    assert (fitted.value.code, counted.value.code) == ("context_length_exceeded",) * 2
    assert engine.counted == 0


def test_what_may_fit_is_counted() -> None:
    engine = CharacterEngine(100)
    engine.bound = 100

    assert count_tokens(engine, [Message("user", "a" * 200)]) == 203


def test_more_messages_than_the_context_has_tokens_are_rejected_without_counting_them() -> None:
    engine = CharacterEngine(100)
    messages = [Message("user", "") for _ in range(101)]
    with pytest.raises(PermanentFailure, match="at least 101 tokens"):
        fit_messages(engine, messages, 0, truncate=False)
    assert engine.counted == 0


def test_a_hundred_thousand_results_of_one_call_take_linear_time() -> None:
    # Quadratic time would be five billion steps.
    calls = Message("assistant", "", (ToolCall("c", "f", "{}"),))
    messages = [Message("user", "a"), calls, *[Message("tool", "", call_id="c")] * 100_000, Message("user", "b")]
    fitting = fit_messages(CharacterEngine(100), messages, 0)
    assert fitting.messages == messages[-1:]

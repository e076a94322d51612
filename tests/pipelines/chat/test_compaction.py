"""Compactions replace the items before them in prompts, and their quotes name the speakers."""

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.platform.errors import PermanentFailure
from pipelines.chat.compaction import (
    FORMAT,
    HEADER,
    MAX_JSON,
    MAX_QUOTED,
    Compaction,
    compaction_item,
    expand_compaction,
    is_of_this_server,
    quote_selector,
    quotes_of,
    quotes_text,
    read_compaction,
)
from pipelines.chat.key_quotes import Quote
from pipelines.chat.prompt import messages_of
from pipelines.inference.engine import Message
from tests.pipelines.chat.conftest import FakeEngine


def message(role, text):
    return {"type": "message", "role": role, "content": [{"text": text}]}


def named(text):
    return {**message("user", text), "name": "ann"}


def call(call_id):
    return {"type": "function_call", "id": "fc_1", "call_id": call_id, "name": "look_up", "arguments": "{}"}


def result(call_id, text):
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def item(*quotes, kept=()):
    return compaction_item("cmp_1", Compaction(quotes, kept))


ROLES = st.sampled_from(["user", "assistant", "system", "developer"])
QUOTES = st.lists(st.builds(Quote, st.text(max_size=20), st.text(max_size=50)), max_size=5)
TEXT = st.text(max_size=50)
KEPT = st.lists(
    st.one_of(
        st.builds(message, ROLES, TEXT), st.builds(named, TEXT), st.builds(call, TEXT), st.builds(result, TEXT, TEXT)
    ),
    max_size=5,
)


@given(st.builds(Compaction, QUOTES, KEPT))
def test_a_compaction_is_read_as_it_was_written(compaction):
    content = compaction_item("cmp_1", compaction)["encrypted_content"]

    assert read_compaction(content) == compaction


def encoded(json: bytes) -> str:
    return FORMAT + base64.urlsafe_b64encode(zlib.compress(json)).decode()


@pytest.mark.parametrize(
    "content",
    [
        FORMAT, FORMAT + "!!!", item(Quote("user", "x"))["encrypted_content"][:-8], encoded(b"[]"),
        encoded(b'{"quotes":[{"speaker":1,"text":"x"}],"kept":[]}'),
        encoded(b'{"quotes":[],"kept":[{"role":"root","name":"","text":"x"}]}'), encoded(b'{"quotes":3,"kept":[]}'),
        encoded(b"[" * 100_000), encoded(b" " * (MAX_JSON + 1)),
    ],
)  # fmt: skip
def test_a_text_that_is_no_compaction_is_refused(content):
    with pytest.raises(ValueError, match="it was changed, cut off, or is too large"):
        read_compaction(content)


@pytest.mark.parametrize(("content", "own"), [("", False), ("gAAAAABo", False), (FORMAT, True)])
def test_a_compaction_of_this_server_is_recognised_by_its_prefix(content, own):
    assert is_of_this_server(content) == own


def test_a_turn_with_a_changed_compaction_fails_for_good():
    with pytest.raises(PermanentFailure, match="A compaction item cannot be read") as failure:
        expand_compaction([{"type": "compaction", "encrypted_content": FORMAT}], lambda quotes, question: quotes)

    assert failure.value.code == "invalid_request"


def test_quotation_marks_in_a_quote_do_not_end_it():
    assert quotes_text([Quote("user", "a” b “c")]).endswith('- user: “a" b "c”')


def test_the_last_compaction_replaces_all_items_before_it_in_a_prompt():
    # Given a compaction that keeps instructions, a question and a call, and quotes the rest
    kept = [message("developer", "Be brief."), message("user", "Which gate?"), call("1"), result("1", "B12")]
    compaction = item(Quote("assistant", "At 7:40."), kept=kept)

    # When a prompt is built from it and what is around it
    messages = messages_of(
        FakeEngine(), {"instructions": "Be kind."}, [message("user", "old"), item(), compaction, message("user", "new")]
    )

    # Then the quotes precede the last question, and the rest has its roles
    assert [(each.role, each.content) for each in messages] == [
        ("system", "Be kind."),
        ("system", "Be brief."),
        ("user", "Which gate?"),
        ("assistant", ""),
        ("tool", "B12"),
        ("system", f"{HEADER}\n- assistant: “At 7:40.”"),
        ("user", "new"),
    ]
    assert messages[3].calls[0].name == "look_up"


def test_a_conversation_without_a_compaction_stays():
    items = [message("user", "one"), message("assistant", "two")]

    assert expand_compaction(items, lambda quotes, question: quotes) == items


def test_quotes_name_speakers_and_calls():
    items = [
        message("assistant", "I look it up."), call("1"), result("1", [{"type": "input_text", "text": "found"}]),
        message("user", " "),
    ]  # fmt: skip

    assert [(quote.speaker, quote.text) for quote in quotes_of(items)] == [
        ("assistant", "I look it up."), ("call of look_up", "{}"), ("result of look_up", "found"),
    ]  # fmt: skip


def test_a_quote_is_one_line():
    assert quotes_text([Quote("user", "one\n- two")]) == f"{HEADER}\n- user: “one - two”"


def test_quotes_fit_into_a_share_of_the_context(fake_engine):
    """The fake engine's tokens are words: fewer than the first guess by characters expects."""
    quotes = [Quote("user", f"the number {number} is a b c d e f g h") for number in range(100)]

    selected = quote_selector(fake_engine(context=240))(quotes, "the number 7")

    assert 30 < fake_engine().count([Message("system", quotes_text(selected))]) <= 60
    assert quotes[7] in selected


def test_a_compaction_of_a_huge_conversation_has_its_most_informative_sentences():
    quotes = [
        Quote("user", f"The code of locker {number} is {number * 7919}. " + "So it is. " * 200) for number in range(99)
    ]

    compaction = read_compaction(item(*quotes)["encrypted_content"])

    assert sum(len(quote.text) for quote in compaction.quotes) <= MAX_QUOTED
    assert all(
        f"locker {number} is {number * 7919}" in "".join(q.text for q in compaction.quotes) for number in range(99)
    )

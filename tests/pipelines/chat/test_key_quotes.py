"""Quotes are exact, in order, within their length, and do not repeat each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.chat import key_quotes
from pipelines.chat.key_quotes import Quote, select_quotes

CHATTER = "Well, that is a very nice thing to hear and I am glad that you told me about it today. "
FACTS = ("My locker code at the gym is 4931.", "Our flight to Lisbon leaves on the 14th.", "Ada is allergic to nuts.")


@given(
    st.lists(st.builds(Quote, st.sampled_from(["user", "assistant"]), st.text(max_size=400)), max_size=12),
    st.integers(0, 600),
)
def test_quotes_are_parts_of_what_was_said_within_the_length(quotes, max_length):
    selected = select_quotes(quotes, max_length)

    assert sum(len(quote.text) for quote in selected) <= max_length
    position = 0
    for quote in selected:
        parts = quote.text.split(key_quotes.GAP) if key_quotes.GAP in quote.text else [quote.text]
        position = next(
            index
            for index in range(position, len(quotes))
            if quotes[index].speaker == quote.speaker and all(part in quotes[index].text for part in parts)
        )


@pytest.mark.parametrize("fact", FACTS)
def test_a_fact_among_chatter_is_quoted(fact):
    """Given a conversation of mostly chatter, when a tenth of it is selected, then the fact is in it."""
    texts = [CHATTER * 3, CHATTER * 2 + fact + " " + CHATTER, CHATTER * 3, CHATTER * 2]
    quotes = [Quote("user" if number % 2 else "assistant", text) for number, text in enumerate(texts)]

    selected = select_quotes(quotes, sum(map(len, texts)) // 4)

    assert fact in " ".join(quote.text for quote in selected)


def test_a_repeated_sentence_is_quoted_once():
    quotes = [Quote("user", "The deadline is on Friday."), Quote("user", "The deadline is on Friday.")]

    assert len(select_quotes(quotes, 1000)) == 1


def test_texts_within_the_length_are_quoted_whole():
    quotes = [Quote("user", "Where is Rome?"), Quote("assistant", "In Italy.")]

    assert select_quotes(quotes, 1000) == quotes


def test_only_the_end_of_a_huge_conversation_is_read(monkeypatch):
    monkeypatch.setattr(key_quotes, "MAX_READ", 60)
    quotes = [Quote("user", f"The code number {number} is {number * 7}.") for number in range(100, 120)]

    selected = select_quotes(quotes, 10_000)

    assert [quote.text for quote in selected] == [quote.text for quote in quotes[-len(selected) :]]
    assert 0 < sum(len(quote.text) for quote in selected) <= 60


def test_sentences_that_match_the_question_are_selected_first_with_their_neighbours():
    """Given an answer that shares no word with the question that it followed."""
    lines = [f"We talked about topic number {number} at length." for number in range(60)]
    lines[7:9] = ["Which gate does the flight to Lisbon leave from?", "It is B12."]
    quotes = [Quote("user", line) for line in lines]

    selected = select_quotes(quotes, 400, "the gate of my Lisbon flight")

    assert [Quote("user", line) for line in lines[7:9]] == [quote for quote in selected if quote.text in lines[7:9]]


def test_the_sentences_of_long_quotes_are_not_kept():
    """Given quotes of any length, when some are selected, then the memory for later selections stays bounded."""
    key_quotes._split.cache_clear()

    select_quotes([Quote("user", "A short one."), Quote("user", "A long one. " * key_quotes.MAX_KEPT)], 100)

    assert key_quotes._split.cache_info().currsize == 1

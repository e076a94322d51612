"""Responses name recalled memories; their texts are those that the memories have now, and only their user's."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pipelines.chat.recalled_memories import MAX_QUOTE, recalled_before, response_with_texts

DAY = datetime(2026, 11, 16, 9, tzinfo=UTC)

#: A memory as an earlier version stored it.
WITH_TEXT = {
    "id": "mem_gone",
    "kind": "fact",
    "speaker": "a",
    "occurred_at": DAY.isoformat(),
    "text": "b",
    "score": 1.0,
}


def remember(harness, text):
    new = harness.remember(text, DAY)
    return {"id": new.id, "kind": "episode", "score": 0.5}


@pytest.fixture
def response(harness):
    return harness.start().response


def test_the_owner_gets_the_present_texts(harness, response):
    short, long = remember(harness, "I have a cat."), remember(harness, "word " * 200)

    with harness.database.connection() as connection:
        complete = response_with_texts(connection, replace(response, recalled=[long, short]))

    first, second = complete.recalled
    assert first["id"] == long["id"]
    assert len(first["text"]) <= MAX_QUOTE
    assert second == {**short, "speaker": "user", "occurred_at": DAY.isoformat(), "text": "I have a cat."}


def test_a_deleted_memory_has_no_text_even_if_an_earlier_version_stored_it(harness, response):
    with harness.database.connection() as connection:
        complete = response_with_texts(connection, replace(response, recalled=[WITH_TEXT]))

    assert complete.recalled == [{**WITH_TEXT, "speaker": None, "occurred_at": None, "text": None}]


@pytest.mark.parametrize("other_user", [None, "user_other"])
def test_memories_of_another_user_have_no_texts(harness, response, other_user):
    reference = remember(harness, "I have a cat.")
    of_another = replace(response, user_id=other_user, recalled=[{**WITH_TEXT, **reference}])

    with harness.database.connection() as connection:
        complete = response_with_texts(connection, of_another)

    assert "cat" not in str(complete.recalled)
    assert WITH_TEXT["text"] not in complete.recalled[0].values()


def test_a_later_attempt_reads_the_texts_that_the_journal_does_not_have(harness, response):
    reference = remember(harness, "I have a cat.")

    with harness.database.connection() as connection:
        assert recalled_before(connection, response, []) == []
        assert recalled_before(connection, response, [WITH_TEXT]) == [WITH_TEXT]
        (memory,) = recalled_before(connection, response, [reference, {**reference, "id": "mem_gone"}])

    assert memory["text"] == "I have a cat."

"""Only facts that cannot both be true contradict each other."""

import pytest

from pipelines.memory.meditation.contradictions import find_contradictions
from tests.pipelines.memory.meditation.snapshots import START, scanned_memory, snapshot_of


def contradictions_of(*texts, **fields):
    return find_contradictions(
        snapshot_of(*(scanned_memory(index, text, kind="fact", **fields) for index, text in enumerate(texts)))
    )


@pytest.mark.parametrize(
    "texts",
    [
        ("Ana lives in Lisbon.", "Ana lives in Porto."),
        ("I live in Rome", "I have moved to Paris"),
        ("My favorite color is blue", "My favourite colour is red"),
        ("Ana works for Acme", "Ana now works at Globex"),
        ("Ana is 30 years old", "Ana is 31 years old"),
        ("Ana's phone number is 555 1234", "Ana's phone number is 555 9876"),
        ("Ana likes sushi", "Ana no longer likes sushi"),
        ("Ana eats meat", "Ana doesn't eat meat"),
    ],
)
def test_newer_fact_contradicts_the_older(texts):
    assert contradictions_of(*texts) == {0: 1}


@pytest.mark.parametrize(
    "texts",
    [
        ("Ana likes sushi", "Ana likes pizza"),
        ("Ana works at Acme", "Ana works at Acme Corp"),
        ("Ana's sister lives in Rome", "Ana lives in Paris"),
        ("Ana's friend is Bob", "Ana's friend is Tom"),
        ("Ana lives in Lisbon.", "Ana lives in Lisbon."),
        ("Ana lived in Lisbon.", "Ana lives in Porto."),
    ],
)
def test_facts_that_can_both_be_true_are_no_contradiction(texts):
    assert contradictions_of(*texts) == {}


def test_facts_of_the_same_time_are_no_contradiction():
    assert contradictions_of("Ana lives in Lisbon.", "Ana lives in Porto.", occurred_at=START) == {}


def test_facts_are_compared_by_the_statements_in_their_metadata():
    memories = [
        scanned_memory(index, text, kind="fact", metadata={"subject": "Ana", "attribute": attribute, "value": value})
        for index, (text, attribute, value) in enumerate(
            [("a", "city", "Rome"), ("b", "City", "Paris"), ("c", "hobby", "chess"), ("d", "hobby", "golf")]
        )
    ]
    assert find_contradictions(snapshot_of(*memories)) == {0: 1}


def test_episodes_are_no_contradiction():
    memories = [scanned_memory(0, "Ana lives in Lisbon."), scanned_memory(1, "Ana lives in Porto.")]
    assert find_contradictions(snapshot_of(*memories)) == {}

"""Given pairs of texts, when they are compared, then only what says the same is a repetition, and only what can't both
be true a contradiction. Given time and use, importance fades and rises."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from models.memory.scan import ScannedMemory
from pipelines.memory.meditation import contradictions, importance
from pipelines.memory.meditation.duplicates import Duplicates
from pipelines.memory.meditation.neighbours import _near, near_pairs
from pipelines.memory.meditation.snapshot import Snapshot

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def memory(place, text, **given):
    usual = {
        "id": f"mem_{place}", "ordinal": place, "kind": "episode", "text": text, "speaker": "user",
        "occurred_at": BEGAN + timedelta(days=5 * place), "conversation_id": None, "metadata": {}, "importance": 0.5,
        "recalled": 0, "recalled_at": None, "valid_from": None, "created_at": BEGAN, "updated_at": BEGAN, "sources": (),
    }  # fmt: skip
    return ScannedMemory(**{**usual, **given})


def survey(*memories):
    """Memories whose vectors are all the same: what they mean tells nothing here."""
    return Snapshot(list(memories), np.full((len(memories), 4), 0.5, dtype=np.float16))


def repeated(*texts, **given):
    seen = survey(*(memory(place, text, **given) for place, text in enumerate(texts)))
    near, cosines = near_pairs(seen.vectors, least=0.9, most=16)
    return Duplicates(seen).find(near, cosines)


@pytest.mark.parametrize(
    "texts",
    [
        ("I like hiking in the mountains.", "I really like hiking in the mountains!"),
        ("I'm allergic to nuts", "I am allergic to nuts."),
        ("MY SISTER IS A DOCTOR", "my sister is a doctor"),
    ],
)
def test_what_says_the_same_repeats_it(texts):
    assert len(repeated(*texts)) == 1


@pytest.mark.parametrize(
    "texts",
    [
        ("I went running.", "I went running."),  # twice
        ("I have a class today", "I have a class today"),
        ("My sister is a doctor", "Your sister is a doctor"),
        ("I like olives", "I do not like olives"),
        ("I like green olives", "I dont like green olives"),
        ("I like to eat green olives in summer", "I used to like to eat green olives in summer"),
        ("im getting a project in Oslo", "im getting a project in Oslo"),
        ("Do you like my green scarf?", "Do you like my green scarf?"),  # its answer comes next
        ("didnt want to leave tbh", "didnt want to leave tbh"),
        ("I own 3 cats", "I own 2 cats"),
        ("I like the red car", "I like the blue car"),
        ("I work at Acme", "I work at Acme in Berlin as a designer"),
        ("Yes", "Yes"),
        ("I know Ana from Rome", "I know Ana to Rome"),
    ],
)
def test_what_says_something_else_or_again_does_not(texts):
    assert repeated(*texts) == {}


def test_an_event_told_twice_at_once_is_one_event():
    assert len(repeated("I went running by the lake.", "I went running by the lake.", occurred_at=BEGAN)) == 1


def test_different_speakers_repeat_nobody():
    told = [memory(0, "I am allergic to nuts"), memory(1, "I am allergic to nuts", speaker="assistant")]
    assert Duplicates(survey(*told)).find(np.array([[0, 1]]), np.array([1.0], dtype=np.float32)) == {}


def test_many_repeat_one_and_none_stands_for_nothing():
    found = repeated(*["I am allergic to nuts"] * 30)

    assert len(found) == 29
    assert set(found.values()) == {29}


def contradicted(*texts, **given):
    return contradictions.find_contradictions(
        survey(*(memory(place, text, kind="fact", **given) for place, text in enumerate(texts)))
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
def test_the_newer_fact_contradicts_the_older(texts):
    assert contradicted(*texts) == {0: 1}


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
def test_what_may_both_be_true_contradicts_nothing(texts):
    assert contradicted(*texts) == {}


def test_of_two_facts_of_one_time_nobody_knows():
    assert contradicted("Ana lives in Lisbon.", "Ana lives in Porto.", occurred_at=BEGAN) == {}


def test_facts_that_tell_what_they_are_about():
    told = [
        memory(place, text, kind="fact", metadata={"subject": "Ana", "attribute": attribute, "value": value})
        for place, (text, attribute, value) in enumerate(
            [("a", "city", "Rome"), ("b", "City", "Paris"), ("c", "hobby", "chess"), ("d", "hobby", "golf")]
        )
    ]
    assert contradictions.find_contradictions(survey(*told)) == {0: 1}


def test_what_was_said_contradicts_nobody():
    told = [memory(0, "Ana lives in Lisbon."), memory(1, "Ana lives in Porto.")]
    assert contradictions.find_contradictions(survey(*told)) == {}


def test_importance_fades_unused_and_rises_with_use():
    def after(days, **given):
        return importance.importance_at(memory(0, "x", **given), BEGAN + timedelta(days=days))

    used = {"recalled": 5, "recalled_at": BEGAN + timedelta(days=100)}
    assert after(0) == 0.5
    assert after(100) < 0.5
    assert after(10_000) == importance.FLOOR
    assert after(100, **used) > 0.7
    assert after(300) < after(300, **used) < after(100, **used)


def test_importance_that_somebody_has_chosen_is_theirs():
    old = BEGAN + timedelta(days=400)
    told = [memory(0, "x"), memory(1, "x", importance=0.9), memory(2, "x", importance=0.3, weighed=0.3)]

    assert [place for place, _ in importance.importance_changes(survey(*told), old)] == [0, 2]


def test_neighbours_are_those_of_all_pairs(monkeypatch):
    """Block by block as in one piece."""
    monkeypatch.setattr("pipelines.memory.meditation.neighbours.ROWS", 7)
    monkeypatch.setattr("pipelines.memory.meditation.neighbours.COLUMNS", 11)
    random = np.random.default_rng(5).standard_normal((60, 8))
    vectors = (random / np.linalg.norm(random, axis=1, keepdims=True)).astype(np.float16)

    found, cosines = near_pairs(vectors, least=0.4, most=100)
    few, _ = near_pairs(vectors, least=0.4, most=2)

    exact = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    expected = {(i, j) for i in range(60) for j in range(i + 1, 60) if exact[i, j] >= 0.4}
    assert {tuple(pair) for pair in found.tolist()} == expected
    assert all(abs(exact[i, j] - cosine) < 1e-5 for (i, j), cosine in zip(found.tolist(), cosines, strict=True))
    assert max(np.bincount(few[:, 0])) == 2


@pytest.mark.parametrize("columns", [20, 100])
def test_where_all_is_alike_each_has_its_nearest_and_no_more_is_kept_at_a_time(monkeypatch, columns):
    monkeypatch.setattr("pipelines.memory.meditation.neighbours.ROWS", 7)
    monkeypatch.setattr("pipelines.memory.meditation.neighbours.COLUMNS", columns)
    random = 1 + np.random.default_rng(5).standard_normal((60, 8))[np.arange(60) % 40] * 0.1
    vectors = (random / np.linalg.norm(random, axis=1, keepdims=True)).astype(np.float16)

    found, _ = near_pairs(vectors, least=0.4, most=3)

    exact = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    nearest = {i: sorted(range(i + 1, 60), key=lambda j, i=i: (-exact[i, j], j))[:3] for i in range(60)}
    assert sorted(tuple(pair) for pair in found.tolist()) == [(i, j) for i in range(60) for j in sorted(nearest[i])]
    assert np.count_nonzero(_near(exact, 0.4, 3)) == 60 * 3

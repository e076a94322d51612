"""Only texts that say the same, and nothing else, are duplicates."""

import numpy as np
import pytest

from pipelines.memory.meditation.duplicates import Duplicates
from pipelines.memory.meditation.neighbours import near_pairs
from tests.pipelines.memory.meditation.snapshots import START, scanned_memory, snapshot_of


def find_duplicates(*texts, **fields):
    snapshot = snapshot_of(*(scanned_memory(index, text, **fields) for index, text in enumerate(texts)))
    pairs, cosines = near_pairs(snapshot.vectors, least=0.9, most=16)
    return Duplicates(snapshot).find(pairs, cosines)


@pytest.mark.parametrize(
    "texts",
    [
        ("I like hiking in the mountains.", "I really like hiking in the mountains!"),
        ("I'm allergic to nuts", "I am allergic to nuts."),
        ("MY SISTER IS A DOCTOR", "my sister is a doctor"),
    ],
)
def test_text_of_the_same_meaning_is_a_duplicate(texts):
    assert len(find_duplicates(*texts)) == 1


@pytest.mark.parametrize(
    "texts",
    [
        ("I went running.", "I went running."),  # on two days
        ("I have a class today", "I have a class today"),
        ("My sister is a doctor", "Your sister is a doctor"),
        ("I like olives", "I do not like olives"),
        ("I like green olives", "I dont like green olives"),
        ("I like to eat green olives in summer", "I used to like to eat green olives in summer"),
        ("im getting a project in Oslo", "im getting a project in Oslo"),
        ("Do you like my green scarf?", "Do you like my green scarf?"),  # a question, whose answer follows
        ("didnt want to leave tbh", "didnt want to leave tbh"),
        ("I own 3 cats", "I own 2 cats"),
        ("I like the red car", "I like the blue car"),
        ("I work at Acme", "I work at Acme in Berlin as a designer"),
        ("Yes", "Yes"),
        ("I know Ana from Rome", "I know Ana to Rome"),
    ],
)
def test_text_of_another_meaning_or_event_is_no_duplicate(texts):
    assert find_duplicates(*texts) == {}


def test_event_reported_twice_at_the_same_time_is_a_duplicate():
    assert len(find_duplicates("I went running by the lake.", "I went running by the lake.", occurred_at=START)) == 1


def test_texts_of_different_speakers_are_no_duplicates():
    memories = [
        scanned_memory(0, "I am allergic to nuts"),
        scanned_memory(1, "I am allergic to nuts", speaker="assistant"),
    ]
    assert Duplicates(snapshot_of(*memories)).find(np.array([[0, 1]]), np.array([1.0], dtype=np.float32)) == {}


def test_all_duplicates_of_a_text_refer_to_the_same_memory():
    found = find_duplicates(*["I am allergic to nuts"] * 30)

    assert len(found) == 29
    assert set(found.values()) == {29}

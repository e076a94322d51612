"""The development set of recall.

Given its scripts and a seed, when a conversation is made, then it is the same each time, its turns are in order of
time, and every question is answered by turns of it.
"""

from collections.abc import Callable

import pytest

from bench.recall.events import circles, texting
from bench.recall.shape import Talk
from bench.recall.written import letters, written

MADE: dict[str, Callable[[], Talk]] = {
    "neighbours": lambda: written("neighbours", ["written-1"], 1),
    "friends": lambda: written("friends", ["written-2"], 1),
    "letters": lambda: letters("letters", ["written-1", "written-2"], 1),
    "texting": lambda: texting("texting", 1),
    "circles": lambda: circles("circles", 1),
}


@pytest.mark.parametrize("name", MADE)
def test_a_conversation_is_whole(name: str) -> None:
    talk = MADE[name]()
    assert talk == MADE[name]()
    assert len(talk.turns) > 150
    assert [turn.at for turn in talk.turns] == sorted(turn.at for turn in talk.turns)
    assert len({turn.speaker for turn in talk.turns}) == 2
    assert not [turn for turn in talk.turns if "{" in turn.text]
    assert not [question for question in talk.questions if "{" in question.text]
    assert all(question.evidence and max(question.evidence) < len(talk.turns) for question in talk.questions)


def test_the_evidence_of_a_question_is_what_its_script_says() -> None:
    talk = written("neighbours", ["written-1"], 1)
    asked = next(question for question in talk.questions if "first thing" in question.text)
    assert [talk.turns[number].text[:7] for number in asked.evidence] == ["A bowl,"]

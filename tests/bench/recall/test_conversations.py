"""The conversations of the development set.

Given scripts and a seed, when a conversation is generated, then it is the same each time, its turns are in order of
time, and every question is answered by some of them.
"""

from collections.abc import Callable

import pytest

from bench.recall.events import circles, texting
from bench.recall.languages import languages
from bench.recall.shape import SampleConversation
from bench.recall.written import letters, written

GENERATORS: dict[str, Callable[[], SampleConversation]] = {
    "neighbours": lambda: written("neighbours", ["written-1"], 1),
    "friends": lambda: written("friends", ["written-2"], 1),
    "letters": lambda: letters("letters", ["written-1", "written-2"], 1),
    "texting": lambda: texting("texting", 1),
    "circles": lambda: circles("circles", 1),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_a_conversation_is_reproducible_and_complete(name: str) -> None:
    conversation = GENERATORS[name]()
    assert conversation == GENERATORS[name]()
    assert len(conversation.turns) > 150
    assert [turn.at for turn in conversation.turns] == sorted(turn.at for turn in conversation.turns)
    assert len({turn.speaker for turn in conversation.turns}) == 2
    assert not [turn for turn in conversation.turns if "{" in turn.text]
    assert not [question for question in conversation.questions if "{" in question.text]
    assert all(
        question.evidence and max(question.evidence) < len(conversation.turns) for question in conversation.questions
    )


def test_the_evidence_of_a_question_is_that_of_its_script() -> None:
    conversation = written("neighbours", ["written-1"], 1)
    match = next(question for question in conversation.questions if "first thing" in question.text)
    assert [conversation.turns[number].text[:7] for number in match.evidence] == ["A bowl,"]


def test_each_language_has_the_same_notes_and_questions() -> None:
    conversations = languages()
    assert len(conversations) >= 8
    assert {len(conversation.turns) for conversation in conversations} == {12}
    evidence = [[question.evidence for question in conversation.questions] for conversation in conversations]
    assert all(each == evidence[0] for each in evidence)

"""The types of the development set: turns of two people, and questions with the turns that answer them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance. Its number is its index in `SampleConversation.turns`."""

    speaker: str
    text: str
    at: datetime
    session: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question, with the numbers of the turns that answer it."""

    text: str
    evidence: frozenset[int]


@dataclass(frozen=True, slots=True)
class SampleConversation:
    """A conversation over months, with its turns in order of time."""

    name: str
    turns: Sequence[Utterance]
    questions: Sequence[Question]

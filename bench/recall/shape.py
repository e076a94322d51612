"""The shape of the development set: turns of two people, and questions with the turns that answer them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Turn:
    """Something said. Its number is its place in `Talk.turns`."""

    speaker: str
    text: str
    at: datetime
    session: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the numbers of the turns that answer it."""

    text: str
    evidence: frozenset[int]


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation over months. Its turns are in order of time."""

    name: str
    turns: Sequence[Turn]
    questions: Sequence[Question]

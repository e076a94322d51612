"""Ranks candidates for a question.

A memory's score is the sum of its parts. Cosines and lexical shares are added as they are, not by rank: how much better
the first is than the second tells something. A turn borrows from the turns around it, because what answers often says
only "I finally signed up for it!". Each weight stands where recall is flat: half or double of it changes little on any
part of the development set, see `python -m bench recall`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import repeat

from pipelines.memory.terms import Question

#: A lexical share against a cosine.
LEXICAL = 0.5

#: What the second and the first turn before lend, and the first and the second after.
BEFORE, AFTER = (0.4, 0.2), (0.25, 0.1)

#: What one lends that is not there, as a part of the memory's own score: facts have no neighbours.
LONE = 0.3

#: A turn of a speaker that the question names.
SPEAKER = 0.25

#: A memory of the time that the question names; half of it just after, when people tell of it.
PERIOD, JUST_AFTER = 0.3, timedelta(days=14)

#: Off for a turn that asks.
ASKS = 0.15

#: A turn with so many different terms says something; less is small talk.
SUBSTANCE, ENOUGH = 0.1, 8

#: Ties fall to the new and the important.
RECENCY, HALF_LIFE = 0.02, timedelta(days=30)
IMPORTANCE = 0.05


@dataclass(frozen=True, slots=True)
class Candidate:
    """A memory that may answer a question.

    previous, next  its neighbours in the conversation, whether or not they are candidates
    dense           the cosine of its vector and the question's
    lexical         Σ share x weight over the question's terms, see `terms.shares`
    asks            whether it ends as a question
    words           how many different terms it has
    """

    id: str
    previous: str | None
    next: str | None
    speaker: str
    occurred_at: datetime
    dense: float
    lexical: float
    asks: bool
    importance: float
    words: int = ENOUGH


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory with its score, which is the sum of its parts."""

    id: str
    score: float
    parts: Mapping[str, float]


def rank(candidates: Sequence[Candidate], question: Question, now: datetime) -> list[Hit]:
    """The best first. Candidates should come with two neighbours on each side: one that is missing lends nothing."""
    known = {candidate.id: candidate for candidate in candidates}
    hits = [_hit(candidate, _parts(candidate, known, question, now)) for candidate in candidates]
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))


def _hit(candidate: Candidate, parts: Mapping[str, float]) -> Hit:
    return Hit(candidate.id, sum(parts.values()), parts)


def _parts(
    candidate: Candidate, known: Mapping[str, Candidate], question: Question, now: datetime
) -> Mapping[str, float]:
    return {
        "dense": candidate.dense,
        "lexical": LEXICAL * candidate.lexical,
        "neighbours": _borrowed(candidate, known),
        "speaker": SPEAKER * (candidate.speaker in question.speakers),
        "period": PERIOD * _within(candidate.occurred_at, question),
        "form": SUBSTANCE * min(candidate.words, ENOUGH) / ENOUGH - ASKS * candidate.asks,
        "recency": RECENCY * 0.5 ** (max(now - candidate.occurred_at, timedelta()) / HALF_LIFE),
        "importance": IMPORTANCE * candidate.importance,
    }


def _own(candidate: Candidate) -> float:
    return candidate.dense + LEXICAL * candidate.lexical


def _borrowed(candidate: Candidate, known: Mapping[str, Candidate]) -> float:
    """What the turns around it lend."""
    before, after = _walk(candidate, known, "previous"), _walk(candidate, known, "next")
    lone = LONE * _own(candidate)
    return sum(
        weight * next(lent, lone)
        for weights, lent in ((BEFORE, before), (AFTER, after))
        for weight in weights
    )  # fmt: skip


def _walk(candidate: Candidate, known: Mapping[str, Candidate], side: str) -> Iterator[float]:
    """What the neighbours on a side score by themselves, the nearest first; 0 for one that is no candidate."""
    at = getattr(candidate, side)
    while at is not None:
        near = known.get(at)
        if near is None:
            yield from repeat(0.0)
        else:
            yield _own(near)
            at = getattr(near, side)


def _within(at: datetime, question: Question) -> float:
    """1 in the time that the question names, 0.5 just after it."""
    if question.period is None:
        return 0.0
    since, until = question.period
    return 1.0 if since <= at < until else 0.5 if until <= at < until + JUST_AFTER else 0.0

"""Ranks candidates for a question.

A memory's score is the sum of its parts. Cosines and lexical shares are added as they are, not by rank: how much better
the first is than the second tells something. A turn borrows from the turns around it, because what answers often says
only "I finally signed up for it!". The weights stand where recall is flat, not at its peak; `python -m bench recall`
shows what each is worth. Words count a little more than the development set asks for, since its questions repeat fewer
of the words that answer them than people do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipelines.memory.terms import Question

#: For how long people tell of a time that is over.
JUST_AFTER = timedelta(days=14)

#: Different terms of a turn that says something; with less it is small talk.
ENOUGH = 8

#: Days in which half of a memory's recency goes.
HALF_LIFE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Weights:
    """What each part counts, where a cosine counts 1.

    before, after        what the first and the second turn before and after lend of their own score
    lone                 what one lends that is not there, of the memory's own score: facts have no neighbours
    speaker              a turn of a speaker that the question names
    period               a memory of the time that the question names; half of it JUST_AFTER
    substance            a memory with ENOUGH different terms
    asks                 off for a turn that asks
    recency, importance  little: they decide between equals
    """

    lexical: float = 0.7
    before: tuple[float, float] = (0.4, 0.2)
    after: tuple[float, float] = (0.25, 0.1)
    lone: float = 0.3
    speaker: float = 0.25
    period: float = 0.3
    substance: float = 0.1
    asks: float = 0.15
    recency: float = 0.02
    importance: float = 0.05


WEIGHTS = Weights()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A memory that may answer a question.

    previous, next  its neighbours in the conversation, whether or not they are candidates
    dense           the cosine of its vector and the question's
    lexical         Σ share x weight over the question's terms, see `terms.shares`
    asks            whether it asks and says little besides
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


def rank(candidates: Sequence[Candidate], question: Question, now: datetime, weights: Weights = WEIGHTS) -> list[Hit]:
    """The best first. Candidates should come with two neighbours on each side: one that is missing lends nothing."""
    ranking = _Ranking({candidate.id: candidate for candidate in candidates}, question, now, weights)
    return sorted((ranking.hit(candidate) for candidate in candidates), key=lambda hit: (-hit.score, hit.id))


@dataclass(frozen=True, slots=True)
class _Ranking:
    """The candidates of one question by id, and what counts."""

    known: Mapping[str, Candidate]
    question: Question
    now: datetime
    weights: Weights

    def hit(self, candidate: Candidate) -> Hit:
        """A candidate with its score."""
        weights, age = self.weights, max(self.now - candidate.occurred_at, timedelta())
        parts = {
            "dense": candidate.dense,
            "lexical": weights.lexical * candidate.lexical,
            "neighbours": self._lent(candidate, "previous", weights.before)
            + self._lent(candidate, "next", weights.after),
            "speaker": weights.speaker * (candidate.speaker in self.question.speakers),
            "period": weights.period * _within(candidate.occurred_at, self.question.period),
            "form": weights.substance * min(candidate.words / ENOUGH, 1) - weights.asks * candidate.asks,
            "recency": weights.recency * 0.5 ** (age / HALF_LIFE),
            "importance": weights.importance * candidate.importance,
        }
        return Hit(candidate.id, sum(parts.values()), parts)

    def _own(self, candidate: Candidate) -> float:
        return candidate.dense + self.weights.lexical * candidate.lexical

    def _lent(self, candidate: Candidate, side: str, weights: Sequence[float]) -> float:
        """What the turns on one side lend, the nearest first."""
        near, lent = getattr(candidate, side), 0.0
        for weight in weights:
            if (lender := self.known.get(near)) is not None:
                lent += weight * self._own(lender)
                near = getattr(lender, side)
            elif near is None:
                lent += weight * self.weights.lone * self._own(candidate)
        return lent


def _within(at: datetime, period: tuple[datetime, datetime] | None) -> float:
    """1 in the time that the question names, 0.5 just after it."""
    if period is None:
        return 0.0
    since, until = period
    return 1.0 if since <= at < until else 0.5 if until <= at < until + JUST_AFTER else 0.0

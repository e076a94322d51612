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

import numpy as np
from numpy.typing import NDArray

from pipelines.memory.terms import ParsedQuery

Numbers = NDArray[np.float64]

#: What stands for a neighbour's row where nobody stands there, and where one does who is no candidate.
NO_NEIGHBOUR, NOT_A_CANDIDATE = -1, -2

#: For how long people tell of a time that is over.
LATE_MENTION = timedelta(days=14)

#: Different terms of a turn that says something; with less it is small talk.
SUBSTANTIAL_TERMS = 8

#: Days in which half of a memory's recency goes.
HALF_LIFE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class FusionWeights:
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
    missing_neighbour: float = 0.3
    speaker: float = 0.25
    period: float = 0.3
    substance: float = 0.1
    question_penalty: float = 0.15
    recency: float = 0.02
    importance: float = 0.05


WEIGHTS = FusionWeights()


@dataclass(frozen=True, slots=True)
class Candidates:
    """Memories that may answer a question: a row each, a column for what counts. Hundreds are ranked at once.

    previous, next  the rows of its neighbours in the conversation; NOBODY, or ELSEWHERE for one that is no candidate
    occurred_at     seconds since 1970
    dense           the cosine of its vector and the question's
    lexical         Σ share x weight over the question's terms, see `terms.shares`
    asks            whether it asks and says little besides
    words           how many different terms it has
    """

    ids: Sequence[str]
    previous: NDArray[np.int64]
    next: NDArray[np.int64]
    speakers: Sequence[str]
    occurred_at: Numbers
    dense: Numbers
    lexical: Numbers
    is_question: NDArray[np.bool_]
    importance: Numbers
    term_counts: Numbers


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """A memory with its score, which is the sum of its parts."""

    id: str
    score: float
    parts: Mapping[str, float]


def rank(
    candidates: Candidates,
    question: ParsedQuery,
    now: datetime,
    weights: FusionWeights = WEIGHTS,
    *,
    passing: NDArray[np.bool_] | None = None,
    limit: int | None = None,
) -> list[RankedCandidate]:
    """The best first: at most `limit` of those that `among` says yes to.

    Candidates should come with two neighbours on each side: one that is missing lends nothing.
    """
    parts = _parts(candidates, question, now, weights)
    scores = np.sum(list(parts.values()), axis=0)
    rows = _first(scores, np.arange(len(scores)) if passing is None else np.flatnonzero(passing), limit)
    best = sorted(rows.tolist(), key=lambda row: (-scores[row], candidates.ids[row]))[:limit]
    return [
        RankedCandidate(
            candidates.ids[row], float(scores[row]), {name: float(part[row]) for name, part in parts.items()}
        )
        for row in best
    ]


def _first(scores: Numbers, rows: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """Of these rows those that can be among the first: as many, and those that equal the last of them."""
    if not limit or limit >= len(rows):
        return rows
    least = np.partition(scores[rows], -limit)[-limit]
    best: NDArray[np.int64] = rows[scores[rows] >= least]
    return best


def _parts(candidates: Candidates, question: ParsedQuery, now: datetime, weights: FusionWeights) -> dict[str, Numbers]:
    """What each candidate's score is the sum of."""
    own = candidates.dense + weights.lexical * candidates.lexical
    age = np.maximum(now.timestamp() - candidates.occurred_at, 0.0)
    said = np.array([speaker in question.speakers for speaker in candidates.speakers], dtype=float)
    return {
        "dense": candidates.dense,
        "lexical": weights.lexical * candidates.lexical,
        "neighbours": _lent(own, candidates.previous, weights.before, weights.missing_neighbour)
        + _lent(own, candidates.next, weights.after, weights.missing_neighbour),
        "speaker": weights.speaker * said,
        "period": weights.period * _within(candidates.occurred_at, question.period),
        "form": weights.substance * np.minimum(candidates.term_counts / SUBSTANTIAL_TERMS, 1)
        - weights.question_penalty * candidates.is_question,
        "recency": weights.recency * 0.5 ** (age / HALF_LIFE.total_seconds()),
        "importance": weights.importance * candidates.importance,
    }


def _lent(own: Numbers, side: NDArray[np.int64], weights: Sequence[float], lone: float) -> Numbers:
    """What the turns on one side lend each candidate, the nearest first."""
    near, lent = side, np.zeros_like(own)
    for weight in weights:
        stands = near >= 0
        lent += weight * np.where(stands, own[near], np.where(near == NO_NEIGHBOUR, lone * own, 0.0))
        near = np.where(stands, side[near], near)
    return lent


def _within(at: Numbers, period: tuple[datetime, datetime] | None) -> Numbers:
    """1 in the time that the question names, 0.5 just after it."""
    if period is None:
        return np.zeros_like(at)
    since, until = (moment.timestamp() for moment in period)
    just_after = (until <= at) & (at < until + LATE_MENTION.total_seconds())
    return np.where((since <= at) & (at < until), 1.0, np.where(just_after, 0.5, 0.0))

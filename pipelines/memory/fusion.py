"""Rank the candidates of a query by a weighted sum of their scores.

    score = cos + 0.7 · L + neighbours + 0.25 · speaker + 0.3 · period
            + 0.1 · min(terms / 8, 1) - 0.15 · question + 0.02 · 2^(-age / 30 days) + 0.05 · importance

    cos         cosine of the memory's vector and the query's
    L           BM25 score, normalised by the query's total idf (`terms.idf_shares`)
    neighbours  Σ w · (cos + 0.7 · L) of the two turns before (w = 0.4, 0.2) and after (w = 0.25, 0.1): an answer is
                often only "I finally signed up for it!". Where a conversation has no such turn, 0.3 times the memory's
                own cos + 0.7 · L takes its place, since facts have no neighbours
    speaker     1 if the query names the memory's speaker
    period      1 within the period that the query names, 0.5 up to 14 days later; its weight is 1 if no candidate has a
                term of the query, as in "What did I do yesterday?"
    question    1 if the memory is only a question

Scores are added as they are and not fused by rank (reciprocal rank fusion: Cormack, Clarke and Büttcher, 2009), because
the distance between the first and the second is informative. The weights lie where recall on the development set is
flat, not at its peak; `python -m bench recall` measures what each contributes. The weight of L is a little above the
set's optimum, because its queries share fewer words with their answers than people's do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from pipelines.memory.terms import ParsedQuery

Numbers = NDArray[np.float64]

#: In place of a neighbour's row: the conversation has no such turn, or the turn is not a candidate.
NO_NEIGHBOUR, NOT_A_CANDIDATE = -1, -2

#: How long after a period people still talk about it.
LATE_MENTION = timedelta(days=14)

#: Distinct terms above which a turn is more than small talk.
SUBSTANTIAL_TERMS = 8

#: The time in which a memory's recency halves.
HALF_LIFE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class FusionWeights:
    """The weight of each part of a score, relative to a cosine's 1.

    before, after        of the scores of the first and second turn before and after
    missing_neighbour    of the memory's own score in place of a turn that does not exist
    speaker              of a turn by a speaker that the query names
    period               of a memory from the period that the query names; halved within LATE_MENTION after it
    only_period          in place of it if no candidate has a term of the query, as in "What did I do yesterday?"
    substance            of a memory with at least SUBSTANTIAL_TERMS distinct terms
    question_penalty     subtracted from a turn that is only a question
    recency, importance  small, so that they decide between near equals
    """

    lexical: float = 0.7
    before: tuple[float, float] = (0.4, 0.2)
    after: tuple[float, float] = (0.25, 0.1)
    missing_neighbour: float = 0.3
    speaker: float = 0.25
    period: float = 0.3
    only_period: float = 1.0
    substance: float = 0.1
    question_penalty: float = 0.15
    recency: float = 0.02
    importance: float = 0.05


WEIGHTS = FusionWeights()


@dataclass(frozen=True, slots=True)
class Candidates:
    """Memories that may match a query, one a row, as columns.

    previous, next  the rows of the neighbours in the conversation, or NO_NEIGHBOUR or NOT_A_CANDIDATE
    occurred_at     seconds since 1970
    dense           the cosine of the memory's vector and the query's
    lexical         Σ share x weight over the query's terms, see `terms.idf_shares`
    is_question     whether it asks and states little besides
    term_counts     the number of distinct terms
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
    """A memory's id with its score, which is the sum of its parts."""

    id: str
    score: float
    parts: Mapping[str, float]


def rank(
    candidates: Candidates,
    query: ParsedQuery,
    now: datetime,
    weights: FusionWeights = WEIGHTS,
    *,
    passing: NDArray[np.bool_] | None = None,
    limit: int | None = None,
) -> list[RankedCandidate]:
    """Return the candidates in descending order of their scores, equal ones by id.

    passing  excludes rows from the result; they still count as neighbours
    limit    of the result

    Candidates should come with two neighbours on each side: one that is not a candidate contributes nothing.
    """
    parts = _score_parts(candidates, query, now, weights)
    scores = np.sum(list(parts.values()), axis=0)
    rows = _top_rows(scores, np.arange(len(scores)) if passing is None else np.flatnonzero(passing), limit)
    top = sorted(rows.tolist(), key=lambda row: (-scores[row], candidates.ids[row]))[:limit]
    return [
        RankedCandidate(
            candidates.ids[row], float(scores[row]), {name: float(part[row]) for name, part in parts.items()}
        )
        for row in top
    ]


def _top_rows(scores: Numbers, rows: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """Select the `limit` rows with the highest scores, and all that tie with the last of them."""
    if not limit or limit >= len(rows):
        return rows
    lowest = np.partition(scores[rows], -limit)[-limit]
    top: NDArray[np.int64] = rows[scores[rows] >= lowest]
    return top


def _score_parts(
    candidates: Candidates, query: ParsedQuery, now: datetime, weights: FusionWeights
) -> dict[str, Numbers]:
    """Return the weighted parts of each candidate's score."""
    own = candidates.dense + weights.lexical * candidates.lexical
    age = np.maximum(now.timestamp() - candidates.occurred_at, 0.0)
    by_named_speaker = np.array([speaker in query.speakers for speaker in candidates.speakers], dtype=float)
    substance = np.minimum(candidates.term_counts / SUBSTANTIAL_TERMS, 1)
    return {
        "dense": candidates.dense,
        "lexical": weights.lexical * candidates.lexical,
        "neighbours": _neighbour_scores(own, candidates.previous, weights.before, weights.missing_neighbour)
        + _neighbour_scores(own, candidates.next, weights.after, weights.missing_neighbour),
        "speaker": weights.speaker * by_named_speaker,
        "period": (weights.period if candidates.lexical.any() else weights.only_period)
        * _period_factor(candidates.occurred_at, query.period),
        "form": weights.substance * substance - weights.question_penalty * candidates.is_question,
        "recency": weights.recency * 0.5 ** (age / HALF_LIFE.total_seconds()),
        "importance": weights.importance * candidates.importance,
    }


def _neighbour_scores(
    own: Numbers, side: NDArray[np.int64], weights: Sequence[float], missing_neighbour: float
) -> Numbers:
    """Sum the weighted scores of the turns on one side of each candidate, the nearest first."""
    rows, total = side, np.zeros_like(own)
    for weight in weights:
        is_candidate = rows >= 0
        substitute = np.where(rows == NO_NEIGHBOUR, missing_neighbour * own, 0.0)
        total += weight * np.where(is_candidate, own[rows], substitute)
        rows = np.where(is_candidate, side[rows], rows)
    return total


def _period_factor(occurred_at: Numbers, period: tuple[datetime, datetime] | None) -> Numbers:
    """Return 1 within the query's period, 0.5 for LATE_MENTION after it, else 0."""
    if period is None:
        return np.zeros_like(occurred_at)
    start, end = (time.timestamp() for time in period)
    just_after = (end <= occurred_at) & (occurred_at < end + LATE_MENTION.total_seconds())
    return np.where((start <= occurred_at) & (occurred_at < end), 1.0, np.where(just_after, 0.5, 0.0))

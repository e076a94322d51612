"""A conversation of the development set as recall sees it: vectors, weights of terms, candidates of a question."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from bench.recall.shape import Talk
from pipelines.memory import terms
from pipelines.memory.fusion import ELSEWHERE, NOBODY, Candidates, rank
from pipelines.memory.fusion import Weights as Parts
from pipelines.memory.terms import Question

#: Texts to unit vectors.
Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]

Scores = NDArray[np.float64]

#: Candidates by meaning and by words, each, and of a time that the question names.
WIDTH, WIDTH_WITHIN = 100, 50

#: Turns on each side of a candidate that come with it.
AROUND = 2

#: How a score looks that is below all.
NOTHING = -np.inf


class Corpus:
    """The turns of a talk, indexed, and its questions."""

    def __init__(self, talk: Talk, embed: Embed) -> None:
        self.talk = talk
        self._names = sorted({turn.speaker for turn in talk.turns})
        self.asked = [terms.question(question.text, self._names) for question in talk.questions]
        self._vectors = np.array(embed([turn.text for turn in talk.turns]))
        self.raw: Scores = np.array(embed([question.text for question in talk.questions])) @ self._vectors.T
        self.dense: Scores = np.array(embed([question.text for question in self.asked])) @ self._vectors.T
        self.own = [terms.weights(turn.text) for turn in talk.turns]
        self.with_previous = [terms.weights(self._with_previous(number)) for number in range(len(talk.turns))]
        self._lexical = self.words(self.own, [question.terms for question in self.asked])

    def _previous(self, number: int) -> int | None:
        turns = self.talk.turns
        return number - 1 if number and turns[number - 1].session == turns[number].session else None

    def _next(self, number: int) -> int | None:
        return number + 1 if number + 1 < len(self.talk.turns) and self._previous(number + 1) is not None else None

    def _with_previous(self, number: int) -> str:
        before = self._previous(number)
        return " ".join(self.talk.turns[at].text for at in (before, number) if at is not None)

    def words(self, index: Sequence[Mapping[str, float]], asked: Sequence[Sequence[str]]) -> Scores:
        """Lexical scores: a row for each list of terms, a column for each turn."""
        frequencies = Counter(term for weights in index for term in weights)
        found = np.zeros((len(asked), len(index)))
        for row, question in enumerate(asked):
            shares = terms.shares(question, len(index), frequencies)
            found[row] = [sum(share * weights.get(term, 0.0) for term, share in shares.items()) for weights in index]
        return found

    def fused(self, weights: Parts) -> Scores:
        """What recall makes of the questions with these weights."""
        return np.array([self._ranked(row, question, weights) for row, question in enumerate(self.asked)])

    def _ranked(self, row: int, question: Question, weights: Parts) -> Scores:
        now = self.talk.turns[-1].at + timedelta(days=1)
        scores = np.full(len(self.talk.turns), NOTHING)
        for hit in rank(self._candidates(row, sorted(self._pool(row, question))), question, now, weights):
            scores[int(hit.id)] = hit.score
        return scores

    def _pool(self, row: int, question: Question) -> set[int]:
        every = np.arange(len(self.talk.turns))
        found = self._best(row, every, WIDTH)
        if question.period:
            since, until = question.period
            found |= self._best(row, every[[since <= turn.at < until for turn in self.talk.turns]], WIDTH_WITHIN)
        for _ in range(AROUND):
            found |= {near for at in found for near in (self._previous(at), self._next(at)) if near is not None}
        return found

    def _best(self, row: int, among: NDArray[np.int64], count: int) -> set[int]:
        near = among[np.argsort(-self.dense[row, among])[:count]]
        worded = among[np.argsort(-self._lexical[row, among])[:count]]
        return {*near.tolist(), *(int(at) for at in worded if self._lexical[row, at] > 0)}

    def _candidates(self, row: int, pool: Sequence[int]) -> Candidates:
        turns, rows = [self.talk.turns[number] for number in pool], {number: at for at, number in enumerate(pool)}
        return Candidates(
            ids=[str(number) for number in pool],
            previous=np.array([_row(self._previous(number), rows) for number in pool]),
            next=np.array([_row(self._next(number), rows) for number in pool]),
            speakers=[turn.speaker for turn in turns],
            occurred_at=np.array([turn.at.timestamp() for turn in turns]),
            dense=self.dense[row, pool],
            lexical=self._lexical[row, pool],
            asks=np.array([terms.asks(turn.text) for turn in turns]),
            importance=np.full(len(pool), 0.5),
            words=np.array([len(self.own[number]) for number in pool], dtype=float),
        )


def _row(number: int | None, rows: Mapping[int, int]) -> int:
    return NOBODY if number is None else rows.get(number, ELSEWHERE)

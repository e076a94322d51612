"""Index a conversation of the development set as recall does: vectors, weights of terms, candidates of a question."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from bench.recall.shape import SampleConversation
from pipelines.memory import terms
from pipelines.memory.fusion import NO_NEIGHBOUR, NOT_A_CANDIDATE, Candidates, rank
from pipelines.memory.fusion import FusionWeights as Parts
from pipelines.memory.terms import ParsedQuery

#: Embeds texts as unit vectors.
EmbedTexts = Callable[[Sequence[str]], Sequence[Sequence[float]]]

Scores = NDArray[np.float64]

#: Candidates by vector and by terms, of all turns, and of the period that the question names.
WIDTH, PERIOD_WIDTH = 100, 50

#: Turns on each side of a candidate that become candidates too.
NEIGHBOURS = 2

#: The score of a turn that is no candidate.
NO_CANDIDATE = -np.inf


class Corpus:
    """The indexed turns of a conversation, and its questions."""

    def __init__(self, conversation: SampleConversation, embed: EmbedTexts) -> None:
        self.conversation = conversation
        self._names = sorted({turn.speaker for turn in conversation.turns})
        self.questions = [terms.parse_query(question.text, self._names) for question in conversation.questions]
        self._vectors = np.array(embed([turn.text for turn in conversation.turns]))
        self.raw: Scores = np.array(embed([question.text for question in conversation.questions])) @ self._vectors.T
        self.dense: Scores = np.array(embed([question.text for question in self.questions])) @ self._vectors.T
        self.term_weights = [terms.term_weights(turn.text) for turn in conversation.turns]
        self.with_previous = [
            terms.term_weights(self._with_previous(number)) for number in range(len(conversation.turns))
        ]
        self._lexical = self._scores_of_forms()

    def _previous(self, number: int) -> int | None:
        turns = self.conversation.turns
        return number - 1 if number and turns[number - 1].session == turns[number].session else None

    def _next(self, number: int) -> int | None:
        return (
            number + 1 if number + 1 < len(self.conversation.turns) and self._previous(number + 1) is not None else None
        )

    def _with_previous(self, number: int) -> str:
        before = self._previous(number)
        return " ".join(self.conversation.turns[at].text for at in (before, number) if at is not None)

    def lexical_scores(self, index: Sequence[Mapping[str, float]], questions: Sequence[Sequence[str]]) -> Scores:
        """Score terms against turns: a row for each list of terms, a column for each turn."""
        frequencies = Counter(term for weights in index for term in weights)
        scores = np.zeros((len(questions), len(index)))
        for row, question in enumerate(questions):
            shares = terms.idf_shares(question, len(index), frequencies)
            scores[row] = [sum(share * weights.get(term, 0.0) for term, share in shares.items()) for weights in index]
        return scores

    def _scores_of_forms(self) -> Scores:
        """Score the questions' terms in all of their forms: the greatest weight of the forms of a term counts."""
        scores = np.zeros((len(self.questions), len(self.term_weights)))
        for row, question in enumerate(self.questions):
            index = [_with_best_forms(weights, question) for weights in self.term_weights]
            scores[row] = self.lexical_scores(index, [question.terms])[0]
        return scores

    def fused(self, weights: Parts) -> Scores:
        """Score the questions as recall does with these weights."""
        return np.array([self._ranked(row, question, weights) for row, question in enumerate(self.questions)])

    def _ranked(self, row: int, question: ParsedQuery, weights: Parts) -> Scores:
        now = self.conversation.turns[-1].at + timedelta(days=1)
        scores = np.full(len(self.conversation.turns), NO_CANDIDATE)
        for hit in rank(self._candidates(row, sorted(self._pool(row, question))), question, now, weights):
            scores[int(hit.id)] = hit.score
        return scores

    def _pool(self, row: int, question: ParsedQuery) -> set[int]:
        every = np.arange(len(self.conversation.turns))
        pool = self._best(row, every, WIDTH)
        if question.period:
            since, until = question.period
            pool |= self._best(row, every[[since <= turn.at < until for turn in self.conversation.turns]], PERIOD_WIDTH)
        for _ in range(NEIGHBOURS):
            pool |= {near for at in pool for near in (self._previous(at), self._next(at)) if near is not None}
        return pool

    def _best(self, row: int, among: NDArray[np.int64], count: int) -> set[int]:
        by_vector = among[np.argsort(-self.dense[row, among])[:count]]
        by_terms = among[np.argsort(-self._lexical[row, among])[:count]]
        return {*by_vector.tolist(), *(int(at) for at in by_terms if self._lexical[row, at] > 0)}

    def _candidates(self, row: int, pool: Sequence[int]) -> Candidates:
        turns, rows = (
            [self.conversation.turns[number] for number in pool],
            {number: at for at, number in enumerate(pool)},
        )
        return Candidates(
            ids=[str(number) for number in pool],
            previous=np.array([_row(self._previous(number), rows) for number in pool]),
            next=np.array([_row(self._next(number), rows) for number in pool]),
            speakers=[turn.speaker for turn in turns],
            occurred_at=np.array([turn.at.timestamp() for turn in turns]),
            dense=self.dense[row, pool],
            lexical=self._lexical[row, pool],
            is_question=np.array([terms.is_question(turn.text) for turn in turns]),
            importance=np.full(len(pool), 0.5),
            term_counts=np.array([len(self.term_weights[number]) for number in pool], dtype=float),
        )


def _with_best_forms(weights: Mapping[str, float], question: ParsedQuery) -> Mapping[str, float]:
    """Return a turn's weights of a question's terms."""
    best = {
        term: max(weights.get(form, 0.0) for form in (term, *question.forms.get(term, ()))) for term in question.terms
    }
    return {term: weight for term, weight in best.items() if weight}


def _row(number: int | None, rows: Mapping[int, int]) -> int:
    return NO_NEIGHBOUR if number is None else rows.get(number, NOT_A_CANDIDATE)

"""The rankings that are compared: the usual ones, recall's, and recall's without each of its parts."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from bench.recall.corpus import Corpus, Scores
from pipelines.memory import terms
from pipelines.memory.fusion import WEIGHTS, Weights

Ranking = Callable[[Corpus], Scores]

#: The constant of reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009).
RRF = 60


def dense(corpus: Corpus) -> Scores:
    """Cosines of the question as it is."""
    return corpus.raw


def bm25(corpus: Corpus) -> Scores:
    """The words of the question, names too, in the turn."""
    return corpus.words(corpus.own, [terms.terms(question.text) for question in corpus.talk.questions])


def bm25_with_previous(corpus: Corpus) -> Scores:
    """The same in the turn and the one before."""
    return corpus.words(corpus.with_previous, [terms.terms(question.text) for question in corpus.talk.questions])


def by_rank(corpus: Corpus) -> Scores:
    """The three fused by their ranks."""
    fused = 1 / (RRF + ranks(dense(corpus))) + 1 / (RRF + ranks(bm25(corpus)))
    return fused + 1 / (RRF + ranks(bm25_with_previous(corpus)))


def ranks(scores: Scores) -> Scores:
    """1 for the best of each row."""
    return np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1).astype(np.float64) + 1


def recalled(weights: Weights) -> Ranking:
    """Recall's ranking."""
    return lambda corpus: corpus.fused(weights)


def names_kept(corpus: Corpus) -> Scores:
    """Recall's, with the question embedded as it is."""
    corpus.dense, rewritten = corpus.raw, corpus.dense
    try:
        return corpus.fused(WEIGHTS)
    finally:
        corpus.dense = rewritten


_without = partial(replace, WEIGHTS)

USUAL: Mapping[str, Ranking] = {
    "dense": dense,
    "BM25": bm25,
    "BM25 with the previous turn": bm25_with_previous,
    "the three by rank": by_rank,
}

PARTS: Mapping[str, Ranking] = {
    "names as I": names_kept,
    "words": recalled(_without(lexical=0.0)),
    "neighbours": recalled(_without(before=(0.0, 0.0), after=(0.0, 0.0), lone=0.0)),
    "second neighbours": recalled(_without(before=(0.4, 0.0), after=(0.25, 0.0))),
    "speaker": recalled(_without(speaker=0.0)),
    "period": recalled(_without(period=0.0)),
    "substance": recalled(_without(substance=0.0)),
    "asking turns damped": recalled(_without(asks=0.0)),
    "recency and importance": recalled(_without(recency=0.0, importance=0.0)),
}

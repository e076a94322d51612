"""The rankings that are compared: baselines, recall's, and recall's without each of its parts."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from bench.recall.corpus import Corpus, Scores
from pipelines.memory import terms
from pipelines.memory.fusion import WEIGHTS, FusionWeights

Ranking = Callable[[Corpus], Scores]

#: The constant of reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009).
RRF = 60


def dense(corpus: Corpus) -> Scores:
    """Score turns by cosine similarity to the unchanged question."""
    return corpus.raw


def bm25(corpus: Corpus) -> Scores:
    """Score turns by BM25 of the question's terms, names included."""
    return corpus.lexical_scores(
        corpus.term_weights, [terms.extract_terms(question.text) for question in corpus.conversation.questions]
    )


def bm25_with_previous(corpus: Corpus) -> Scores:
    """Score turns by BM25 in the turn and the previous one."""
    return corpus.lexical_scores(
        corpus.with_previous, [terms.extract_terms(question.text) for question in corpus.conversation.questions]
    )


def reciprocal_rank_fusion(corpus: Corpus) -> Scores:
    """Fuse the three rankings above by reciprocal rank."""
    fused = 1 / (RRF + ranks(dense(corpus))) + 1 / (RRF + ranks(bm25(corpus)))
    return fused + 1 / (RRF + ranks(bm25_with_previous(corpus)))


def ranks(scores: Scores) -> Scores:
    """Return the rank of each column in its row: 1 is the best."""
    return np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1).astype(np.float64) + 1


def fused_ranking(weights: FusionWeights) -> Ranking:
    """Recall's ranking with these weights."""
    return lambda corpus: corpus.fused(weights)


def without_replacing_names(corpus: Corpus) -> Scores:
    """Recall's ranking, with the question embedded without replacing names."""
    corpus.dense, rewritten = corpus.raw, corpus.dense
    try:
        return corpus.fused(WEIGHTS)
    finally:
        corpus.dense = rewritten


_without = partial(replace, WEIGHTS)

BASELINES: Mapping[str, Ranking] = {
    "dense": dense,
    "BM25": bm25,
    "BM25 with the previous turn": bm25_with_previous,
    "reciprocal rank fusion of the three": reciprocal_rank_fusion,
}

ABLATIONS: Mapping[str, Ranking] = {
    "replacing names": without_replacing_names,
    "terms": fused_ranking(_without(lexical=0.0)),
    "neighbours": fused_ranking(_without(before=(0.0, 0.0), after=(0.0, 0.0), missing_neighbour=0.0)),
    "second neighbours": fused_ranking(_without(before=(0.4, 0.0), after=(0.25, 0.0))),
    "speaker": fused_ranking(_without(speaker=0.0)),
    "period": fused_ranking(_without(period=0.0)),
    "substance": fused_ranking(_without(substance=0.0)),
    "damping of questions": fused_ranking(_without(question_penalty=0.0)),
    "recency and importance": fused_ranking(_without(recency=0.0, importance=0.0)),
}

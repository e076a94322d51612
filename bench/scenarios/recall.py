"""Recall: the share of the turns that answer a question among the first 10 and 20 hits, on the development set.

Five conversations of different style, from seeds that the weights were not chosen on (their scripts were); see
`bench/recall/written.py` and `events.py` for how they were made and what they cannot tell. A sample is a conversation.
The storage has tests of its own against the exact answer: here all is exact, so that only the ranking is measured.
"""

from collections.abc import Sequence

import numpy as np

from bench.bench import Bench
from bench.figures import Figure, Goal, at_least
from bench.recall.corpus import Corpus, Scores
from bench.recall.events import circles, texting
from bench.recall.rankings import PARTS, USUAL, Ranking, recalled
from bench.recall.shape import Talk
from bench.recall.written import letters, written
from pipelines.inference.embedder import load_embedder
from pipelines.memory.fusion import WEIGHTS

#: What is to be reached, by how many hits count.
GOALS = {10: at_least(0.72), 20: at_least(0.80)}

SEED = 21


def talks() -> list[Talk]:
    """Conversations that no weight was chosen on."""
    return [
        written("neighbours", ["written-1"], SEED),
        written("friends", ["written-2"], SEED),
        letters("letters", ["written-1", "written-2"], SEED),
        texting("texting", SEED),
        circles("circles", SEED),
    ]


def recall(bench: Bench) -> Sequence[Figure]:
    """The usual rankings, recall's, and what it is without each of its parts."""
    embedder = load_embedder(bench.stack.settings)
    corpora = []
    for number, talk in enumerate(given := talks()):
        bench.progress.step(number, len(given), "conversations embedded")
        corpora.append(Corpus(talk, embedder.embed))
    rankings = {**USUAL, "recall": recalled(WEIGHTS), **{f"recall without {part}": how for part, how in PARTS.items()}}
    figures: list[Figure] = []
    for number, (name, ranking) in enumerate(rankings.items()):
        bench.progress.step(number, len(rankings), "rankings")
        figures += measured(name, ranking, corpora, GOALS if name == "recall" else {})
    return figures


def measured(name: str, ranking: Ranking, corpora: Sequence[Corpus], goals: dict[int, Goal]) -> list[Figure]:
    """A ranking's recall at 10 and at 20."""
    scores = [ranking(corpus) for corpus in corpora]
    return [
        Figure(
            f"{name}, at {count}",
            "",
            [share(corpus, each, count) for corpus, each in zip(corpora, scores, strict=True)],
            goals.get(count),
        )
        for count in GOALS
    ]


def share(corpus: Corpus, scores: Scores, count: int) -> float:
    """Of the turns that answer, how many are among the first: the mean over the questions."""
    first = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    found = [
        len(question.evidence.intersection(row)) / len(question.evidence)
        for question, row in zip(corpus.talk.questions, first.tolist(), strict=True)
    ]
    return float(np.mean(found))

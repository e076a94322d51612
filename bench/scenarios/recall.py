"""Recall: the share of the turns that answer a question among the first 10 and 20 hits, on the development set.

Five conversations of different style, generated from seeds that the weights were not chosen on (their scripts were);
`bench/recall/written.py` and `events.py` describe how they are generated, and their limits. A sample is a conversation.
The vector and term storage has tests of its own against the exact answer; here everything is exact, so only the ranking
is measured.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from bench.figures import Figure, Goal, at_least
from bench.recall.corpus import Corpus, EmbedTexts, Scores
from bench.recall.events import circles, texting
from bench.recall.languages import languages
from bench.recall.rankings import ABLATIONS, BASELINES, Ranking, dense, fused_ranking
from bench.recall.shape import Question, SampleConversation
from bench.recall.written import letters, written
from bench.scenario import Bench
from pipelines.chat.key_quotes import Quote, select_quotes
from pipelines.inference.llamacpp.embedder import load_embedder
from pipelines.memory.fusion import WEIGHTS
from pipelines.memory.passages import split_sentences

#: Goals by the number of hits.
GOALS = {10: at_least(0.85), 20: at_least(0.90)}

SEED = 21


def conversations() -> list[SampleConversation]:
    """Generate conversations that no weight was chosen on."""
    return [
        written("neighbours", ["written-1"], SEED),
        written("friends", ["written-2"], SEED),
        letters("letters", ["written-1", "written-2"], SEED),
        texting("texting", SEED),
        circles("circles", SEED),
    ]


def recall(bench: Bench) -> Sequence[Figure]:
    """Measure baseline rankings, recall's ranking, and recall's without each of its parts."""
    embedder = load_embedder(bench.stack.settings)
    corpora = []
    for number, conversation in enumerate(generated := conversations()):
        bench.progress.step(number, len(generated), "conversations embedded")
        corpora.append(Corpus(conversation, embedder.embed))
    rankings = {
        **BASELINES,
        "recall": fused_ranking(WEIGHTS),
        **{f"recall without {part}": ranking for part, ranking in ABLATIONS.items()},
    }
    figures: list[Figure] = []
    for number, (name, ranking) in enumerate(rankings.items()):
        bench.progress.step(number, len(rankings), "rankings")
        figures += measure(name, ranking, corpora, GOALS if name == "recall" else {})
    return [*figures, *measure_languages(embedder.embed), *measure_quotes(generated)]


def measure_quotes(conversations: Sequence[SampleConversation]) -> list[Figure]:
    """Measure the share of answering sentences in a fifth of each conversation: in quotes, and in the latest turns."""
    quoted, latest = [], []
    for conversation in conversations:
        quotes = [Quote("user", turn.text) for turn in conversation.turns]
        length = sum(len(quote.text) for quote in quotes) // 5
        quoted.append(
            np.mean(
                [
                    answered(conversation, question, select_quotes(quotes, length, question.text))
                    for question in conversation.questions
                ]
            )
        )
        last = latest_quotes(quotes, length)
        latest.append(np.mean([answered(conversation, question, last) for question in conversation.questions]))
    return [
        Figure("a fifth of a conversation, quoted", "", [float(share) for share in quoted], at_least(0.5)),
        Figure("the latest fifth of a conversation", "", [float(share) for share in latest], None),
    ]


def answered(conversation: SampleConversation, question: Question, quotes: Sequence[Quote]) -> float:
    """Return the share of the sentences of the answering turns that are quoted."""
    text = "\n".join(quote.text for quote in quotes)
    turns = [conversation.turns[number].text for number in question.evidence]
    sentences = [turn[start : start + length].strip() for turn in turns for start, length in split_sentences(turn)]
    return sum(sentence in text for sentence in sentences) / len(sentences)


def latest_quotes(quotes: Sequence[Quote], max_length: int) -> Sequence[Quote]:
    """Return the last quotes that fit."""
    lengths = accumulate(len(quote.text) for quote in reversed(quotes))
    return quotes[len(quotes) - sum(length <= max_length for length in lengths) :]


def measure_languages(embed: EmbedTexts) -> list[Figure]:
    """Measure the share of the questions in other languages whose answer is the first of a dozen notes."""
    corpora = [Corpus(conversation, embed) for conversation in languages()]
    rankings = {"": fused_ranking(WEIGHTS), " by vectors alone": dense}
    return [
        Figure(f"{corpus.conversation.name}{name}, at 1", "", [share(corpus, ranking(corpus), 1)], None)
        for name, ranking in rankings.items()
        for corpus in corpora
    ]


def measure(name: str, ranking: Ranking, corpora: Sequence[Corpus], goals: dict[int, Goal]) -> list[Figure]:
    """Measure a ranking's recall at 10 and at 20."""
    scores = list(zip(corpora, [ranking(corpus) for corpus in corpora], strict=True))
    return [
        Figure(f"{name}, at {count}", "", [share(corpus, each, count) for corpus, each in scores], goals.get(count))
        for count in GOALS
    ]


def share(corpus: Corpus, scores: Scores, count: int) -> float:
    """Return the mean over the questions of the share of answering turns among the first hits."""
    first = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    shares = [
        len(question.evidence.intersection(row)) / len(question.evidence)
        for question, row in zip(corpus.conversation.questions, first.tolist(), strict=True)
    ]
    return float(np.mean(shares))

"""Select quotes of a long text without a language model: sentences that match a question or are most informative.

Most of the length goes to the sentences whose terms match the question best, each with its neighbours, which may
contain the answer. The rest goes to sentences that cover the terms of the highest value. They are chosen greedily: the
next one adds most value for its length (Lin and Bilmes 2011, "A class of submodular functions for document
summarization"), so that little is repeated.

A fifth of a long conversation, quoted so, has two thirds of the sentences that answer a question about it; its latest
fifth has a quarter (`python -m bench recall`).
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from pipelines.memory.passages import split_sentences
from pipelines.memory.terms import extract_terms

#: Characters that are considered, at the end of the text: they take a third of a second.
MAX_READ = 400_000

#: Characters of a quote, at most, whose sentences are kept for later selections: they take seventy times its bytes.
MAX_KEPT = 1024

#: The share of the length that is for sentences that match the question.
MATCHES_SHARE = 0.7

#: Factors of a term's value: terms with digits cannot be guessed from the rest, and users' texts matter more than
#: answers.
DIGITS_FACTOR, USER_FACTOR = 2.0, 1.5

#: The value of the oldest sentence beside that of the newest one.
OLDEST = 0.5

#: How much a sentence's length reduces its value: 0 not at all, 1 in proportion. Shorter ones count as MIN_LENGTH.
LENGTH_EXPONENT, MIN_LENGTH = 0.6, 40

#: Joins sentences of one quote that do not follow each other.
GAP = " … "


@dataclass(frozen=True, slots=True)
class Quote:
    """A text of a speaker, or a part of it."""

    speaker: str
    text: str


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A part of a quote, its distinct terms, and the factor of its value."""

    quote: int
    start: int
    end: int
    terms: frozenset[str]
    factor: float

    @property
    def cost(self) -> int:
        return self.end - self.start + len(GAP)


def select_quotes(quotes: Sequence[Quote], max_length: int, question: str = "") -> list[Quote]:
    """Return the parts of these quotes that match the question or are most informative, in order.

    Together they have at most `max_length` characters.
    """
    sentences = list(_sentences(_last(quotes)))
    matches = _matches(sentences, frozenset(extract_terms(question)), int(max_length * MATCHES_SHARE))
    selected = _fill(sentences, matches, max_length)
    return list(_joined(quotes, [sentences[index] for index in sorted(selected)]))


def _last(quotes: Sequence[Quote]) -> list[tuple[int, Quote]]:
    """Return the last quotes with their positions, as many as are considered."""
    last, length = list[tuple[int, Quote]](), 0
    for position in range(len(quotes) - 1, -1, -1):
        if last and length + len(quotes[position].text) > MAX_READ:
            break
        length += len(quotes[position].text)
        last.append((position, quotes[position]))
    return last[::-1]


def _sentences(quotes: Sequence[tuple[int, Quote]]) -> Iterator[_Sentence]:
    for order, (position, quote) in enumerate(quotes):
        age = OLDEST + (1 - OLDEST) * (order + 1) / len(quotes)
        factor = age * (USER_FACTOR if quote.speaker == "user" else 1)
        for start, end, terms in _split_kept(quote.text[:MAX_READ]):
            yield _Sentence(position, start, end, terms, factor)


def _split_kept(text: str) -> Sequence[tuple[int, int, frozenset[str]]]:
    return _split(text) if len(text) <= MAX_KEPT else _split.__wrapped__(text)


@lru_cache(maxsize=2048)  # each turn after a compaction selects from the same quotes
def _split(text: str) -> Sequence[tuple[int, int, frozenset[str]]]:
    spans = ((start, start + length) for start, length in split_sentences(text))
    return [(start, end, frozenset(extract_terms(text[start:end]))) for start, end in spans]


def _frequencies(sentences: Sequence[_Sentence]) -> Counter[str]:
    return Counter(term for sentence in sentences for term in sentence.terms)


def _matches(sentences: Sequence[_Sentence], question: frozenset[str], max_length: int) -> set[int]:
    """Return the positions of the sentences that match the question best, and of their neighbours."""
    frequencies = _frequencies(sentences)
    idf = {term: math.log(1 + len(sentences) / frequencies[term]) for term in question if term in frequencies}
    scores = {
        index: score
        for index, sentence in enumerate(sentences)
        if (score := sum(idf[term] for term in sentence.terms & idf.keys())) > 0
    }
    matches, left = set[int](), max_length
    for index in sorted(scores, key=scores.__getitem__, reverse=True):
        near = {index + step for step in (-1, 0, 1) if 0 <= index + step < len(sentences)}
        for new in (near - matches, {index} - matches):
            if (cost := sum(sentences[each].cost for each in new)) <= left:
                left -= cost
                matches |= new
                break
    return matches


def _fill(sentences: Sequence[_Sentence], matches: set[int], max_length: int) -> set[int]:
    """Return the matches and the sentences that add most to them.

    A sentence's gain only falls as others are selected, so only the gain of the best one is computed again. It is
    selected if it is still the best (Minoux 1978).
    """
    values = _term_values(_frequencies(sentences))
    covered = {term for index in matches for term in sentences[index].terms}

    def gain(index: int) -> float:
        sentence = sentences[index]
        value = sum(values[term] for term in sentence.terms if term not in covered)
        return value * sentence.factor / math.pow(max(sentence.end - sentence.start, MIN_LENGTH), LENGTH_EXPONENT)

    heap = [(-gain(index), index) for index in range(len(sentences)) if index not in matches]
    heapq.heapify(heap)
    selected, left = set(matches), max_length - sum(sentences[index].cost for index in matches)
    while heap:
        stale, index = heapq.heappop(heap)
        present = gain(index)
        if present > 0 and heap and present < -heap[0][0] and present < -stale:
            heapq.heappush(heap, (-present, index))
        elif present > 0 and sentences[index].cost <= left:
            left -= sentences[index].cost
            covered |= sentences[index].terms
            selected.add(index)
    return selected


def _term_values(frequencies: Mapping[str, int]) -> dict[str, float]:
    return {
        term: math.log1p(frequency) * (DIGITS_FACTOR if any(map(str.isdigit, term)) else 1)
        for term, frequency in frequencies.items()
    }


def _joined(quotes: Sequence[Quote], sentences: Sequence[_Sentence]) -> Iterator[Quote]:
    """Join the sentences of each quote, with a gap where some are left out."""
    for position, group in groupby(sentences, key=lambda sentence: sentence.quote):
        text, end = "", None
        for sentence in group:
            gap = GAP if end is not None and end != sentence.start else ""
            text += gap + quotes[position].text[sentence.start : sentence.end]
            end = sentence.end
        yield Quote(quotes[position].speaker, text.strip())

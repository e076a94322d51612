"""Select the sentences that say most of a text: exact quotes, without a language model.

Each term has a value, which grows with the number of sentences that have it. The selection covers terms of as much
value as fits: greedily, the next sentence is the one that adds most for its length (Lin and Bilmes 2011, "A class of
submodular functions for document summarization"). So a selected sentence repeats little of the others.
"""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipelines.memory.passages import split_sentences
from pipelines.memory.terms import extract_terms

#: Characters that are considered: the last ones. A second of work.
MAX_READ = 400_000

#: Factors of a term's value: a number or a name with digits can't be guessed from the rest; what users say matters
#: more than what an assistant answers.
DIGITS_FACTOR, USER_FACTOR = 2.0, 1.5

#: The value of the oldest sentence beside that of the newest one.
OLDEST = 0.5

#: How much a sentence's length counts against it: 0 not at all, 1 in proportion.
LENGTH_EXPONENT = 0.6

#: What joins quotes of one message that do not follow each other.
GAP = " … "


@dataclass(frozen=True, slots=True)
class Quote:
    """What a speaker has said, or a part of it."""

    speaker: str
    text: str


@dataclass(frozen=True, slots=True)
class _Sentence:
    quote: int
    start: int
    end: int
    terms: frozenset[str]
    factor: float


def select_quotes(quotes: Sequence[Quote], max_length: int, check: Callable[[], None] = lambda: None) -> list[Quote]:
    """Return the parts of these quotes that say most in `max_length` characters, in their order.

    `check` is called now and then, to raise the reason to stop.
    """
    sentences = list(_sentences(_last(quotes), check))
    values = _term_values(sentences)
    selected = sorted(_select(sentences, values, max_length, check))
    return list(_joined(quotes, [sentences[index] for index in selected]))


def _last(quotes: Sequence[Quote]) -> list[tuple[int, Quote]]:
    """Return the last quotes with their positions, as many as are considered."""
    last, length = list[tuple[int, Quote]](), 0
    for position in range(len(quotes) - 1, -1, -1):
        if last and length + len(quotes[position].text) > MAX_READ:
            break
        length += len(quotes[position].text)
        last.append((position, quotes[position]))
    return last[::-1]


def _sentences(quotes: Sequence[tuple[int, Quote]], check: Callable[[], None]) -> Iterator[_Sentence]:
    for order, (position, quote) in enumerate(quotes):
        check()
        age = OLDEST + (1 - OLDEST) * (order + 1) / len(quotes)
        factor = age * (USER_FACTOR if quote.speaker == "user" else 1)
        for start, length in split_sentences(quote.text[:MAX_READ]):
            terms = frozenset(extract_terms(quote.text[start : start + length]))
            yield _Sentence(position, start, start + length, terms, factor)


def _term_values(sentences: Sequence[_Sentence]) -> dict[str, float]:
    frequencies = Counter(term for sentence in sentences for term in sentence.terms)
    return {
        term: math.log1p(frequency) * (DIGITS_FACTOR if any(map(str.isdigit, term)) else 1)
        for term, frequency in frequencies.items()
    }


def _select(
    sentences: Sequence[_Sentence], values: dict[str, float], max_length: int, check: Callable[[], None]
) -> Iterator[int]:
    """Yield the selected sentences' positions. A gain only falls as others are selected: the top of the heap is
    computed again, and taken if it is still the best (Minoux 1978).
    """
    said = set[str]()

    def gain(index: int) -> float:
        sentence = sentences[index]
        value = sum(values[term] for term in sentence.terms if term not in said)
        return value * sentence.factor / math.pow(max(sentence.end - sentence.start, 1), LENGTH_EXPONENT)

    heap = [(-gain(index), index) for index in range(len(sentences))]
    heapq.heapify(heap)
    left = max_length
    while heap:
        stale, index = heapq.heappop(heap)
        if (present := gain(index)) <= 0:
            continue
        if heap and present < -heap[0][0] and present < -stale:
            heapq.heappush(heap, (-present, index))
            continue
        length = sentences[index].end - sentences[index].start + len(GAP)
        if length <= left:
            check()
            left -= length
            said |= sentences[index].terms
            yield index


def _joined(quotes: Sequence[Quote], sentences: Sequence[_Sentence]) -> Iterator[Quote]:
    """Join the sentences of each quote, with a gap where some are left out."""
    for number, sentence in enumerate(sentences):
        before = sentences[number - 1] if number else None
        text = quotes[sentence.quote].text[sentence.start : sentence.end]
        if before is None or before.quote != sentence.quote:
            parts = [text]
        else:
            parts += [text] if before.end == sentence.start else [GAP, text]
        following = sentences[number + 1] if number + 1 < len(sentences) else None
        if following is None or following.quote != sentence.quote:
            yield Quote(quotes[sentence.quote].speaker, "".join(parts).strip())

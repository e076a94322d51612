"""Terms of memories and of questions, for lexical search.

It is BM25 (Robertson and Zaragoza, 2009) without an average length: a memory's weights are final when it is written.
They are its own term frequencies, saturated and divided by its length against a fixed one. Only how rare a term is
changes as memories come and go, and that is counted for each user.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from threading import Lock

import snowballstemmer

from pipelines.memory.periods import TIME_EXPRESSION, parse_period
from pipelines.memory.stopwords import STOP_WORDS, WORDLIKE_NAMES

#: BM25's saturation, what length counts, and the length in terms that counts as usual. Recall hardly feels them.
K1, B, TYPICAL_LENGTH = 1.2, 0.4, 12

#: Characters of a term that count.
MAX_TERM_LENGTH = 40

#: A word with what follows its apostrophe, or one sign of a script that has no spaces.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+(?:'[^\W\d_]+)?")

#: A sentence with its end, and the signs of one that asks.
SENTENCE, ASKING = re.compile(r"[^.!?\uff1f\n]*[.!?\uff1f\n]*"), re.compile(r"[?\uff1f]")

#: Terms besides its questions with which a turn says something.
MIN_STATEMENT_TERMS = 5

_stemmer = snowballstemmer.stemmer("english")
_stemmer_lock = Lock()


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """What a question asks for.

    text      to embed, without dates; the speakers that it names speak of themselves: they stand as `I` and `my`
    terms     each once, without names of speakers and dates
    speakers  those that it names
    period    the time that it names, end excluded
    """

    text: str
    terms: Sequence[str]
    speakers: frozenset[str] = frozenset()
    period: tuple[datetime, datetime] | None = None


def term_weights(text: str) -> Mapping[str, float]:
    """A memory's terms, each with its weight: above 0, and below K1 + 1."""
    found = extract_terms(text)
    floor = K1 * (1 - B + B * len(found) / TYPICAL_LENGTH)
    return {term: count * (K1 + 1) / (count + floor) for term, count in Counter(found).items()}


def is_question(text: str) -> bool:
    """Whether it asks and says little besides: then the answer is elsewhere."""
    if not ASKING.search(text):
        return False
    said = (sentence for sentence in SENTENCE.findall(text) if not ASKING.search(sentence))
    return len(extract_terms(" ".join(said))) < MIN_STATEMENT_TERMS


def parse_query(query: str, speakers: Sequence[str]) -> ParsedQuery:
    """What is asked, where these speak."""
    text = nameless = TIME_EXPRESSION.sub(" ", query)
    named = [(speaker, pattern) for speaker in speakers if (pattern := _name(speaker)) and pattern.search(text)]
    for _, pattern in named:
        text = pattern.sub(lambda found: "my" if found["of"] else "I", text)
        nameless = pattern.sub(" ", nameless)
    asked = list(dict.fromkeys(extract_terms(nameless)))
    return ParsedQuery(" ".join(text.split()), asked, frozenset(speaker for speaker, _ in named), parse_period(query))


def idf(memories: int, frequency: int) -> float:
    """What a term weighs that so many of all memories have."""
    return math.log(1 + (memories - frequency + 0.5) / (frequency + 0.5))


def idf_shares(asked: Sequence[str], memories: int, frequencies: Mapping[str, int]) -> Mapping[str, float]:
    """What each term of a question weighs, 1 in all: a memory's lexical score is the sum of share x weight."""
    rare = {term: idf(memories, frequencies.get(term, 0)) for term in asked}
    return {term: weight / sum(rare.values()) for term, weight in rare.items()}


def extract_terms(text: str) -> list[str]:
    """Stems of the words that tell something, in order, with repeats."""
    words = (word for word in WORD.findall(text.casefold().replace("’", "'")) if word not in STOP_WORDS)  # noqa: RUF001
    return [stem(word.removesuffix("'s")[:MAX_TERM_LENGTH]) for word in words]


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A word without its ending. Cached, as the stemmer takes 20 µs; locked, as it keeps the word in itself."""
    with _stemmer_lock:
        return str(_stemmer.stemWord(word))


@lru_cache(maxsize=1024)
def _name(speaker: str) -> re.Pattern[str] | None:
    """Where a speaker is named, by the whole name or the first part of it; None for a name without letters.

    As it is written, so that `Will` is not in "will she", and in small letters where it is no common word.
    """
    parts = re.findall(r"[^\W\d_]\w*", speaker)
    if not parts:
        return None
    names = {speaker.strip(), parts[0]}
    names |= {name.lower() for name in names if name.lower() not in WORDLIKE_NAMES}
    either = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{either})(?P<of>['’]s?)?(?!\w)")  # noqa: RUF001

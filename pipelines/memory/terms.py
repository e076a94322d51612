"""Extract the lexical terms of memories and queries, and weigh them for BM25.

BM25 (Robertson and Zaragoza, 2009) with a fixed length in place of the average one, so that a memory's weights are
final when it is written:

    score(q, m) = Σ idf(t) / Σ idf · w(t, m)                  over the terms t of q
    w(t, m)     = tf · (K1 + 1) / (tf + K1 · (1 - B + B · terms(m) / TYPICAL_LENGTH))
    idf(t)      = ln(1 + (n - df + 0.5) / (df + 0.5))         n: live memories of the user, df: those with t

Only idf changes as memories are added and removed; it is computed for each query.
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

#: BM25's saturation and length normalisation, and the length in terms that stands for the average. Recall hardly
#: depends on them.
K1, B, TYPICAL_LENGTH = 1.2, 0.4, 12

#: Characters of a term; the rest is cut off.
MAX_TERM_LENGTH = 40

#: A word with what follows its apostrophe, or one character of a script without spaces (kana, CJK).
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+(?:'[^\W\d_]+)?")

#: A sentence with its final punctuation, and the punctuation of a question.
SENTENCE, QUESTION_MARK = re.compile(r"[^.!?\uff1f\n]*[.!?\uff1f\n]*"), re.compile(r"[?\uff1f]")

#: The terms that a text needs outside its questions to count as a statement.
MIN_STATEMENT_TERMS = 5

_stemmer = snowballstemmer.stemmer("english")
_stemmer_lock = Lock()


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """A query, analysed.

    text      the text to embed: without dates, and with the names of speakers replaced by `I` and `my`, since speakers
              refer to themselves so
    terms     distinct, without speakers' names and dates
    speakers  the speakers that the query names
    period    the period that the query names, end excluded
    """

    text: str
    terms: Sequence[str]
    speakers: frozenset[str] = frozenset()
    period: tuple[datetime, datetime] | None = None


def term_weights(text: str) -> Mapping[str, float]:
    """Weigh each term of a memory by BM25's w(t, m), without idf: above 0 and below K1 + 1."""
    terms = extract_terms(text)
    saturation = K1 * (1 - B + B * len(terms) / TYPICAL_LENGTH)
    return {term: count * (K1 + 1) / (count + saturation) for term, count in Counter(terms).items()}


def is_question(text: str) -> bool:
    """Return whether a text asks a question and states little besides, so that it answers nothing itself."""
    if not QUESTION_MARK.search(text):
        return False
    statements = (sentence for sentence in SENTENCE.findall(text) if not QUESTION_MARK.search(sentence))
    return len(extract_terms(" ".join(statements))) < MIN_STATEMENT_TERMS


def parse_query(query: str, speakers: Sequence[str]) -> ParsedQuery:
    """Analyse a query on memories of these speakers."""
    text = without_names = TIME_EXPRESSION.sub(" ", query)
    named = [(speaker, pattern) for speaker in speakers if (pattern := _name_pattern(speaker)) and pattern.search(text)]
    for _, pattern in named:
        text = pattern.sub(lambda match: "my" if match["possessive"] else "I", text)
        without_names = pattern.sub(" ", without_names)
    terms = list(dict.fromkeys(extract_terms(without_names)))
    return ParsedQuery(" ".join(text.split()), terms, frozenset(speaker for speaker, _ in named), parse_period(query))


def idf(memories: int, frequency: int) -> float:
    """Return the inverse document frequency of a term that `frequency` of all memories have."""
    return math.log(1 + (memories - frequency + 0.5) / (frequency + 0.5))


def idf_shares(terms: Sequence[str], memories: int, frequencies: Mapping[str, int]) -> Mapping[str, float]:
    """Return each term's share of the query's total idf: a memory's lexical score is the sum of share x weight."""
    idfs = {term: idf(memories, frequencies.get(term, 0)) for term in terms}
    return {term: weight / sum(idfs.values()) for term, weight in idfs.items()}


def extract_terms(text: str) -> list[str]:
    """Return the stems of a text's words without stop words, in order, with repeats."""
    words = (word for word in WORD.findall(text.casefold().replace("’", "'")) if word not in STOP_WORDS)  # noqa: RUF001
    return [stem(word.removesuffix("'s")[:MAX_TERM_LENGTH]) for word in words]


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """Stem a word. Cached, as stemming takes 20 µs; locked, as the stemmer keeps the word in its state."""
    with _stemmer_lock:
        return str(_stemmer.stemWord(word))


@lru_cache(maxsize=1024)
def _name_pattern(speaker: str) -> re.Pattern[str] | None:
    """Build a pattern for a speaker's full name and its first part; None for a name without letters.

    Names match as they are written, so that "will she" does not name `Will`; in lower case only if the name is no
    common word.
    """
    parts = re.findall(r"[^\W\d_]\w*", speaker)
    if not parts:
        return None
    names = {speaker.strip(), parts[0]}
    names |= {name.lower() for name in names if name.lower() not in WORDLIKE_NAMES}
    alternatives = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{alternatives})(?P<possessive>['’]s?)?(?!\w)")  # noqa: RUF001

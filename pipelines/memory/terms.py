"""Extract the lexical terms of memories and queries, and weigh them for BM25.

BM25 (Robertson and Zaragoza, 2009) with a fixed length in place of the average one, so that a memory's weights are
final when it is written:

    score(q, m) = Σ idf(t) / Σ idf · w(t, m)                  over the terms t of q
    w(t, m)     = tf · (K1 + 1) / (tf + K1 · (1 - B + B · terms(m) / TYPICAL_LENGTH))
    idf(t)      = ln(1 + (n - df + 0.5) / (df + 0.5))         n: live memories of the user, df: those with t

Only idf changes as memories are added and removed; it is computed for each query.

A memory is indexed under one stem of each word, by the language of its text. A query of English words has the same
stems. In other queries the language is often uncertain, and a memory's may have been too, so each word is searched for
under its stems in all languages of its script: its forms.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

import regex

from pipelines.memory import earlier_terms, languages, tokens
from pipelines.memory.periods import NamedTime, find_times, period_of
from pipelines.memory.stemmers import stem
from pipelines.memory.stopwords import QUERY_PHRASES, WORDLIKE_NAMES

#: BM25's saturation and length normalisation, and the length in terms that stands for the average. Recall hardly
#: depends on them.
K1, B, TYPICAL_LENGTH = 1.2, 0.4, 12

#: Characters of a term; the rest is cut off.
MAX_TERM_LENGTH = 40

#: The versions of terms: of versions before schema 0021, and of this one.
EARLIER, CURRENT = 1, 2

#: A sentence with its final punctuation, and the punctuation of a question.
SENTENCE = regex.compile(r"[^.!?\uff1f\u061f\u3002\u0964\n]*[.!?\uff1f\u061f\u3002\u0964\n]*")
QUESTION_MARK = regex.compile(r"[?\uff1f\u061f]")

#: The terms that a text needs outside its questions to count as a statement.
MIN_STATEMENT_TERMS = 5


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """A query, analysed.

    text      the text to embed: without dates, and with the names of speakers replaced by `I` and `my`, since speakers
              refer to themselves so
    terms     distinct, without speakers' names and dates
    speakers  the speakers that the query names
    period    the period that the query names, end excluded
    forms     other forms of a term, under which memories may be indexed: a memory has the term with the weight of
              whichever form has the greatest
    """

    text: str
    terms: Sequence[str]
    speakers: frozenset[str] = frozenset()
    period: tuple[datetime, datetime] | None = None
    forms: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def all_forms(self) -> list[str]:
        """The terms and their other forms, distinct."""
        return list(dict.fromkeys([*self.terms, *(form for forms in self.forms.values() for form in forms)]))


def term_weights(text: str, version: int = CURRENT) -> Mapping[str, float]:
    """Weigh each term of a memory by BM25's w(t, m), without idf: above 0 and below K1 + 1."""
    terms = extract_terms(text, version)
    length = terms_length(terms) if version == CURRENT else len(terms)
    saturation = K1 * (1 - B + B * length / TYPICAL_LENGTH)
    return {term: count * (K1 + 1) / (count + saturation) for term, count in Counter(terms).items()}


def terms_length(terms: Iterable[str]) -> float:
    """Return how many words these terms stand for: pairs of characters overlap."""
    return sum(tokens.PAIR_LENGTH if tokens.is_pair(term) else 1.0 for term in terms)


def is_question(text: str) -> bool:
    """Return whether a text asks a question and states little besides, so that it answers nothing itself."""
    if not QUESTION_MARK.search(text):
        return False
    statements = (sentence for sentence in SENTENCE.findall(text) if not QUESTION_MARK.search(sentence))
    return terms_length(extract_terms(" ".join(statements))) < MIN_STATEMENT_TERMS


def parse_query(
    query: str, speakers: Sequence[str], now: datetime | None = None, *, earlier: bool = False
) -> ParsedQuery:
    """Analyse a query on memories of these speakers.

    now      the time of the query, to which times such as "last week" refer; the present by default
    earlier  whether some memories are indexed by the terms of earlier versions
    """
    query = tokens.normalize(query)
    times = find_times(query, now or datetime.now(UTC))
    text = without_names = _without_times(query, times)
    named = [(speaker, pattern) for speaker in speakers if (pattern := _name_pattern(speaker)) and pattern.search(text)]
    for _, pattern in named:
        text = pattern.sub(lambda match: "my" if match["possessive"] else "I", text)
        without_names = pattern.sub(" ", without_names)
    terms, forms = _query_terms(without_names, earlier=earlier)
    named_speakers = frozenset(speaker for speaker, _ in named)
    return ParsedQuery(" ".join(text.split()), terms, named_speakers, period_of(times), forms)


def _without_times(query: str, times: Sequence[NamedTime]) -> str:
    """Remove what can only be a time."""
    for time in reversed(times):
        if not time.is_word:
            query = f"{query[: time.start]} {query[time.end :]}"
    return query


def idf(memories: int, frequency: int) -> float:
    """Return the inverse document frequency of a term that `frequency` of all memories have."""
    return math.log(1 + (memories - frequency + 0.5) / (frequency + 0.5))


def idf_shares(terms: Sequence[str], memories: int, frequencies: Mapping[str, int]) -> Mapping[str, float]:
    """Return each term's share of the query's total idf: a memory's lexical score is the sum of share x weight."""
    idfs = {term: idf(memories, frequencies.get(term, 0)) for term in terms}
    return {term: weight / sum(idfs.values()) for term, weight in idfs.items()}


def extract_terms(text: str, version: int = CURRENT) -> list[str]:
    """Return the stems of a text's words without stop words, in order, with repeats."""
    if version == EARLIER:
        return earlier_terms.extract_terms(text)
    words = tokens.split(text)
    language = next(iter(languages.latin_languages(words)), languages.DEFAULT)
    return [_term(word, language) for word in words if not _is_stop_word(word, language)]


def _is_stop_word(word: str, language: str) -> bool:
    return word in languages.FUNCTION_WORDS.get(languages.script_language(word) or language, ())


@lru_cache(maxsize=65536)
def _term(word: str, latin_language: str) -> str:
    """Return the term of a word; `latin_language` is that of words in Latin script."""
    if tokens.is_pair(word):
        return word
    language = languages.script_language(word) or latin_language
    return tokens.fold_accents(stem(word.removesuffix("'s")[:MAX_TERM_LENGTH], language)) or word[:MAX_TERM_LENGTH]


def _query_terms(text: str, *, earlier: bool) -> tuple[list[str], dict[str, list[str]]]:
    """Return the distinct terms of a query, and their other forms.

    earlier  whether some memories are indexed by the terms of earlier versions
    """
    words = tokens.split(QUERY_PHRASES.sub(" ", tokens.normalize(text)))
    likely = languages.latin_languages(words)
    stop_words = frozenset().union(*(languages.FUNCTION_WORDS[language] for language in likely or [languages.DEFAULT]))
    kept = [word for word in words if word not in stop_words and not _is_stop_word(word, languages.DEFAULT)]
    terms, forms = dict[str, None](), dict[str, list[str]]()
    for word in _without_particles(kept):
        term, *others = dict.fromkeys(_word_forms(word, likely))
        others += [form for form in earlier_terms.extract_terms(word) if earlier and form not in (term, *others)]
        terms[term] = None
        if others:
            forms[term] = list(dict.fromkeys([*forms.get(term, []), *others]))
    return list(terms), forms


def _word_forms(word: str, likely: Sequence[str]) -> list[str]:
    """Return the terms under which memories may have a word, the likeliest first."""
    if likely == [languages.DEFAULT] and word.isascii():
        return [_term(word, languages.DEFAULT)]
    others = languages.LATIN_LANGUAGES if not languages.script_language(word) and not tokens.is_pair(word) else ()
    return [_term(word, language) for language in (*likely, languages.DEFAULT, *others)]


def _without_particles(words: Sequence[str]) -> Sequence[str]:
    """Leave out pairs of hiragana, which are mostly endings and particles, if a query has other words."""
    return [word for word in words if not tokens.is_hiragana(word)] or words


@lru_cache(maxsize=1024)
def _name_pattern(speaker: str) -> regex.Pattern[str] | None:
    """Build a pattern for a speaker's full name and its first part; None for a name without letters.

    Names match as they are written, so that "will she" does not name `Will`; in lower case only if the name is no
    common word.
    """
    speaker = tokens.normalize(speaker)
    parts = regex.findall(r"[^\W\d_][\w\p{M}]*", speaker)
    if not parts:
        return None
    names = {speaker.strip(), parts[0]}
    names |= {name.lower() for name in names if name.lower() not in WORDLIKE_NAMES}
    alternatives = "|".join(regex.escape(name) for name in sorted(names, key=len, reverse=True))
    return regex.compile(rf"(?<!\w)(?:{alternatives})(?P<possessive>['’]s?)?(?!\w)")  # noqa: RUF001

"""Split texts into the words that are searched for, in all scripts.

Canonically equivalent texts, and compatible ones such as full-width letters, have the same words (NFKC, UAX #15), in
folded case. In scripts without spaces between words, and in Korean, whose particles are written together with their
noun, each pair of neighbouring characters is a word: a dictionary of each language would take tens of megabytes.
"""
# ruff: noqa: RUF001 - letters of other scripts

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise

import regex

#: Characters of a word; the rest is cut off.
MAX_WORD_LENGTH = 40

#: The length of a pair or a single character, where a word of another script has 1.
PAIR_LENGTH = 0.3

#: Runs of one script that are split into pairs: ideographs, kana, syllables, and scripts whose characters have marks.
_IDEOGRAPHS, _HIRAGANA, _KATAKANA, _HANGUL = r"[\p{Han}々〆]+", r"\p{Hiragana}+", r"[\p{Katakana}ー]+", r"\p{Hangul}+"
_MARKED = r"\p{Thai}+|\p{Lao}+|\p{Khmer}+|\p{Myanmar}+|\p{Tibetan}+"
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー々〆\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"

TOKEN = regex.compile(
    rf"(?P<ideographs>{_IDEOGRAPHS})|(?P<hiragana>{_HIRAGANA})|(?P<katakana>{_KATAKANA})|(?P<hangul>{_HANGUL})"
    rf"|(?P<marked>{_MARKED})|(?P<emoji>\p{{Extended_Pictographic}}|[\U0001f1e6-\U0001f1ff]{{2}})"
    rf"|(?P<word>[[\p{{L}}\p{{N}}]--[{_UNSPACED}]][[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]*+(?:'[\p{{L}}\p{{M}}]+)?)",
    regex.VERSION1,
)

#: As above, in plain ASCII.
ASCII_WORD = regex.compile(r"[a-z0-9]+(?:'[a-z]+)?")

#: Invisible characters that are part of no word; vowel signs and points that Arabic and Hebrew may leave out; tatweel.
IGNORED = regex.compile(
    r"[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    r"\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed\U000e0100-\U000e01ef]"
)

OTHER_DIGIT = regex.compile(r"[\p{Nd}--[0-9]]", regex.VERSION1)

CLUSTER = regex.compile(r"\X")

#: Chinese function words of one character: they separate words.
FUNCTION_CHARACTERS = frozenset("的了是在我你您他她它们們这這那和与與也都就吗嗎呢吧啊把被给給哪谁誰么麼什")

#: Letters before an apostrophe that are an article, a pronoun or a preposition: l'école, dell'anno.
ELISIONS = frozenset(["l", "d", "j", "m", "t", "s", "n", "c", "qu", "dell", "nell", "sull", "all", "dall", "un"])


def normalize(text: str) -> str:
    """Return a text in NFKC without invisible characters, digits of all scripts as ASCII. The case is kept."""
    if text.isascii():
        return text
    text = IGNORED.sub("", unicodedata.normalize("NFKC", text)).replace("’", "'")
    return str(OTHER_DIGIT.sub(lambda match: str(unicodedata.decimal(match[0])), text))


def fold_case(text: str) -> str:
    """Fold the case of a normalised text. The dotted capital I of Turkish becomes i."""
    return text.casefold().replace("i\u0307", "i") if not text.isascii() else text.lower()


def fold_accents(word: str) -> str:
    """Remove the accents of Latin and Greek letters, and the difference between the i's of Turkish."""
    if word.isascii() or word[0] >= "\u0400":
        return word
    letters = (letter for letter in unicodedata.normalize("NFD", word) if not unicodedata.combining(letter))
    return "".join(letters).replace("ı", "i")


def is_pair(word: str) -> bool:
    """Return whether a word is a pair of characters, or a single one, of a script without spaces."""
    return word[0] >= "\u0e00" and (match := TOKEN.match(word)) is not None and match.lastgroup not in ("word", "emoji")


def is_hiragana(word: str) -> bool:
    """Return whether a word is of hiragana only."""
    return "\u3041" <= word[0] <= "\u309f" and "\u3041" <= word[-1] <= "\u309f"


def split(text: str) -> list[str]:
    """Return the words of a text in folded case, in order."""
    text = fold_case(normalize(text))
    if text.isascii():
        return list(ASCII_WORD.findall(text))
    return [word for match in TOKEN.finditer(text) for word in _words(str(match.lastgroup), match[0])]


def _words(kind: str, run: str) -> Iterator[str]:
    """Yield the words of a match of TOKEN."""
    if kind == "ideographs":
        for part in regex.split(f"[{''.join(FUNCTION_CHARACTERS)}]", run):
            yield from part
            yield from _pairs(part)
    elif kind == "hangul":
        yield from run
        yield from _pairs(run)
    elif kind == "hiragana":
        yield from _pairs(run)
    elif kind in ("katakana", "marked"):
        characters = CLUSTER.findall(run)
        yield from _pairs(characters) if len(characters) > 1 else characters
    else:
        yield without_affix(run)


def _pairs(characters: Sequence[str]) -> Iterator[str]:
    return (first + second for first, second in pairwise(characters))


def without_affix(word: str) -> str:
    """Remove what an apostrophe separates from a word: the article of l'école, the case of İstanbul'da."""
    before, apostrophe, after = word.partition("'")
    if not apostrophe or (word.isascii() and after in ("s", "t", "d", "m", "ll", "re", "ve")):
        return word
    if before in ELISIONS and len(after) > 2:
        return after
    return before if len(before) > 2 else word

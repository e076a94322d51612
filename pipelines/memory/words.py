"""Split texts into words and classify the words, to compare texts in English.

In other languages every word counts as a content word.
"""

import re

import regex

from pipelines.memory.tokens import normalize

WORD = regex.compile(r"[\p{L}\p{N}][\p{L}\p{M}\p{N}]*(?:['\u2019][\p{L}\p{M}\p{N}]+)*")

_CONTRACTION_LIST = """
    i'm=i am|you're=you are|he's=he is|she's=she is|it's=it is|we're=we are|they're=they are|that's=that is|i've=i have
    |you've=you have|we've=we have|they've=they have|i'd=i would|i'll=i will|we'll=we will|there's=there is
    |can't=can not|cannot=can not|won't=will not|isn't=is not|aren't=are not|wasn't=was not|weren't=were not
    |don't=do not|doesn't=does not|didn't=did not|hasn't=has not|haven't=have not|hadn't=had not|couldn't=could not
    |wouldn't=would not|shouldn't=should not"""

#: Contractions that are other words without their apostrophe.
_AMBIGUOUS = frozenset(["its", "were", "hed", "shed", "wed", "id", "ill", "well"])

_EXPANSIONS = {
    short.strip(): tuple(long.split())
    for short, _, long in (form.partition("=") for form in _CONTRACTION_LIST.split("|"))
}

#: Contractions and their expansions, also without the apostrophe, as many write them.
CONTRACTIONS = {
    bare: long for short, long in _EXPANSIONS.items() if (bare := short.replace("'", "")) not in _AMBIGUOUS
} | _EXPANSIONS

_TRIMMINGS = """
    a an the and so oh well yeah yes yep ok okay um uh hey hi hello thanks thank please just really very quite actually
    truly honestly basically literally definitely absolutely wow haha lol btw anyway also too"""

#: Articles, interjections and intensifiers: a text means the same without them.
TRIMMINGS = frozenset(_TRIMMINGS.split())

_FILLERS = """
    but then than that this these those there here it its i me my mine myself you your yours he him his she her hers we
    us our ours they them their theirs who whom which what when where why how is am are was were be been being do does
    did done doing have has had having will would can could should shall may might must of in on at to from by for with
    about into over under as if or because while up down out off again"""

#: Function words: they carry little meaning by themselves.
FILLERS = TRIMMINGS | frozenset(_FILLERS.split())

_NEGATIONS = "not no never none nobody nothing neither nor without hardly stopped quit longer"

NEGATIONS = frozenset(_NEGATIONS.split())

_HEDGES = """
    used almost nearly might may maybe perhaps would could should if unless except only formerly former ex before until
    wish hope hoped think thought believe guess supposed rarely seldom sometimes often always than but instead"""

#: Words that qualify a statement, so that it is another one without them.
HEDGES = frozenset(_HEDGES.split())

_STATES = """
    is am are like likes love loves hate hates prefer prefers live lives work works own owns know knows speak speaks
    have has need needs want wants drive drives play plays eat eats drink drinks study studies teach teaches favorite
    favourite called allergic always usually"""

#: Verbs of lasting states, in the present tense...
STATES = frozenset(_STATES.split())

_EVENTS = """
    today tonight yesterday tomorrow now currently ago last next recently lately just soon later earlier morning
    afternoon evening night week weekend month year monday tuesday wednesday thursday friday saturday sunday again first
    finally already was were did had went got saw came took made bought met said told felt found gave ate ran won lost
    left began started heard read thought going gonna will seen been done gone taken given eaten written broken known"""

#: ...and words that tie a statement to its day.
EVENTS = frozenset(_EVENTS.split())

PAST = re.compile(r"\w{3,}ed")

#: The present progressive.
PROGRESSIVE = re.compile(r"\b(?:am|is|are|be|keep|keeps)(?: \w+)? \w{2,}ing\b")


def split_words(text: str) -> list[str]:
    """Return a text's words in lower case, with contractions expanded."""
    found = (word.replace("\u2019", "'") for word in WORD.findall(normalize(text).lower()))
    return [part for word in found for part in CONTRACTIONS.get(word, (word,))]


def content_words(words: list[str]) -> frozenset[str]:
    """Return the distinct words without function words, in the singular."""
    return frozenset(_singular(word) for word in words if word not in FILLERS)


def _singular(word: str) -> str:
    word = word.removesuffix("'s")
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def distinguishing_words(words: list[str]) -> list[str]:
    """Return the words that must be equal in two texts of the same meaning: numbers, negations and hedges, sorted."""
    distinguishing = NEGATIONS | HEDGES
    return sorted(word for word in words if word in distinguishing or any(char.isdigit() for char in word))


def states_lasting_fact(words: list[str]) -> bool:
    """Return whether a text states what is so, and not what has happened or is under way."""
    if any(word in EVENTS or PAST.fullmatch(word) for word in words) or PROGRESSIVE.search(" ".join(words)):
        return False
    return any(word in STATES for word in words)

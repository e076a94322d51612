"""Words of memories, as far as two texts are compared by them. English; of other languages every word counts."""

import re

WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")

_SHORT_FORMS = """
    i'm=i am|you're=you are|he's=he is|she's=she is|it's=it is|we're=we are|they're=they are|that's=that is|i've=i have
    |you've=you have|we've=we have|they've=they have|i'd=i would|i'll=i will|we'll=we will|there's=there is
    |can't=can not|cannot=can not|won't=will not|isn't=is not|aren't=are not|wasn't=was not|weren't=were not
    |don't=do not|doesn't=does not|didn't=did not|hasn't=has not|haven't=have not|hadn't=had not|couldn't=could not
    |wouldn't=would not|shouldn't=should not"""

#: Forms that are other words without their apostrophe.
_OTHER_WORDS = frozenset(["its", "were", "hed", "shed", "wed", "id", "ill", "well"])

_LONG_FORMS = {
    short.strip(): tuple(long.split()) for short, _, long in (form.partition("=") for form in _SHORT_FORMS.split("|"))
}

#: What contractions stand for, also without the apostrophe, as many write them.
SHORT_FORMS = {
    bare: long for short, long in _LONG_FORMS.items() if (bare := short.replace("'", "")) not in _OTHER_WORDS
} | _LONG_FORMS

_TRIMMINGS = """
    a an the and so oh well yeah yes yep ok okay um uh hey hi hello thanks thank please just really very quite actually
    truly honestly basically literally definitely absolutely wow haha lol btw anyway also too"""

#: Words that may be there or not.
TRIMMINGS = frozenset(_TRIMMINGS.split())

_FILLERS = """
    but then than that this these those there here it its i me my mine myself you your yours he him his she her hers we
    us our ours they them their theirs who whom which what when where why how is am are was were be been being do does
    did done doing have has had having will would can could should shall may might must of in on at to from by for with
    about into over under as if or because while up down out off again"""

#: Words that say little by themselves.
FILLERS = TRIMMINGS | frozenset(_FILLERS.split())

_NEGATIONS = "not no never none nobody nothing neither nor without hardly stopped quit longer"

NEGATIONS = frozenset(_NEGATIONS.split())

_HEDGES = """
    used almost nearly might may maybe perhaps would could should if unless except only formerly former ex before until
    wish hope hoped think thought believe guess supposed rarely seldom sometimes often always than but instead"""

#: What turns a statement into another one.
HEDGES = frozenset(_HEDGES.split())

_STATES = """
    is am are like likes love loves hate hates prefer prefers live lives work works own owns know knows speak speaks
    have has need needs want wants drive drives play plays eat eats drink drinks study studies teach teaches favorite
    favourite called allergic always usually"""

#: What holds for longer than a day is told in the present tense...
STATES = frozenset(_STATES.split())

_EVENTS = """
    today tonight yesterday tomorrow now currently ago last next recently lately just soon later earlier morning
    afternoon evening night week weekend month year monday tuesday wednesday thursday friday saturday sunday again first
    finally already was were did had went got saw came took made bought met said told felt found gave ate ran won lost
    left began started heard read thought going gonna will seen been done gone taken given eaten written broken known"""

#: ...and without a word that ties it to its day.
EVENTS = frozenset(_EVENTS.split())

PAST = re.compile(r"\w{3,}ed")

#: What is under way.
PROGRESS = re.compile(r"\b(?:am|is|are|be|keep|keeps)(?: \w+)? \w{2,}ing\b")


def split_words(text: str) -> list[str]:
    """A text's words, in lower case, with contractions spelled out."""
    found = (word.replace("\u2019", "'") for word in WORD.findall(text.lower()))
    return [part for word in found for part in SHORT_FORMS.get(word, (word,))]


def content_words(said: list[str]) -> frozenset[str]:
    """What words are about: without fillers, and without the ending of a plural."""
    return frozenset(_singular(word) for word in said if word not in FILLERS)


def _singular(word: str) -> str:
    word = word.removesuffix("'s")
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def distinguishing_words(said: list[str]) -> list[str]:
    """The words of which none may differ: numbers, negations, and what else turns a statement into another."""
    telling = NEGATIONS | HEDGES
    return sorted(word for word in said if word in telling or any(sign.isdigit() for sign in word))


def states_lasting_fact(said: list[str]) -> bool:
    """Whether a text tells of what is so, and not of what has happened."""
    if any(word in EVENTS or PAST.fullmatch(word) for word in said) or PROGRESS.search(" ".join(said)):
        return False
    return any(word in STATES for word in said)

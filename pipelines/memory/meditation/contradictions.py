"""Contradictions among facts: the same attribute of the same subject, another value. The newer one closes the older.

A fact says what it is about in its metadata (`subject`, `attribute`, `value`), or in a sentence of a known form. Only
attributes that have one value at a time can contradict: somebody who likes sushi may like pizza too. Beyond these, a
fact contradicts the one that says the same with a negation.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from models.memory.facts import Fact
from models.memory.scan import ScannedMemory
from pipelines.memory.meditation.snapshot import Snapshot
from pipelines.memory.words import FILLERS, content_words, split_words

#: Attributes that have one value at a time. `favourite …` is one too.
SINGLE = (
    "name|nickname|age|birthday|birth date|date of birth|job|occupation|profession|employer|company|workplace|position|"
    "role|title|salary|city|country|town|hometown|home|address|home address|residence|location|nationality|citizenship|"
    "phone|phone number|number|email|e-mail|email address|partner|husband|wife|spouse|boyfriend|girlfriend|fiance|"
    "fiancee|boss|manager|landlord|school|university|major|religion|diet|height|weight|relationship status|"
    "marital status|car|time zone|timezone|native language|mother tongue|blood type|shoe size|plan|rent|budget|deadline"
)

FAVOURITE = r"favou?rite(?: [\w-]+){1,3}?"

SUBJECT, VALUE, NOW = r"(?P<subject>[^,;]{1,80}?)", r"(?P<value>.{1,120})", r"(?: now| currently| still| actually)?"


@dataclass(frozen=True, slots=True)
class SentencePattern:
    """A sentence that tells one value of an attribute; None takes the name of the attribute from the sentence."""

    attribute: str | None
    pattern: re.Pattern[str]


def _form(attribute: str | None, rest: str) -> SentencePattern:
    return SentencePattern(attribute, re.compile(f"{SUBJECT}{rest}", re.IGNORECASE))


FORMS = (
    _form(None, rf"(?:'s|\u2019s|(?<=my)|(?<=his)|(?<=her)|(?<=their)|(?<=our)) (?:current |new )?"
                rf"(?P<attribute>{SINGLE}|{FAVOURITE})(?: is|'s){NOW} {VALUE}"),
    _form("home", rf"{NOW} (?:lives?|resides?|(?:is|am) (?:living|based)|(?:has |have )?(?:just )?moved)"
                  rf"{NOW} (?:in|at|to) {VALUE}"),
    _form("employer", rf"{NOW} (?:works?|(?:is|am) working|(?:is|am) employed){NOW} (?:at|for) {VALUE}"),
    _form("job", rf"{NOW} (?:works?|(?:is|am) working){NOW} as {VALUE}"),
    _form("age", rf" (?:is|am){NOW} (?P<value>\d{{1,3}}) years old"),
    _form("name", rf" (?:is|am) (?:called|named) {VALUE}"),
    _form("partner", rf" (?:is|am){NOW} (?:married|engaged) to {VALUE}"),
    _form("birthday", rf" was born (?:on|in) {VALUE}"),
    _form("relationship status", rf" (?:is|am){NOW} (?P<value>single|married|engaged|divorced|widowed)"),
    _form("diet", rf" (?:is|am){NOW} (?:an? )?(?P<value>vegetarian|vegan|pescatarian|omnivore)"),
)  # fmt: skip

NEGATION = re.compile(
    r"\b(?:(?:does|do|is|am|are|has|have)(?: not| no longer|n['\u2019]t)|(?:has|have) no"
    r"|no longer|not|never|stopped|quit)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """What a fact says of what. Two claims about the same contradict when neither value is a part of the other."""

    topic: Hashable
    value: frozenset[str]


def statements(memory: ScannedMemory | Fact) -> Iterator[Statement]:
    """What a fact claims, as far as it can be told."""
    told = _told(memory)
    if told is not None:
        yield told
        return
    text = memory.text.strip().rstrip(".!")
    for form in FORMS:
        if (match := form.pattern.fullmatch(text)) is not None:
            attribute = form.attribute or _plain(match["attribute"])
            yield Statement((_plain(match["subject"]), attribute), content_words(split_words(match["value"])))
            break
    yield _polarity(text)


def _told(memory: ScannedMemory | Fact) -> Statement | None:
    """The claim of a fact whose metadata tells it."""
    given = [memory.metadata.get(name) for name in ("subject", "attribute", "value")]
    if not all(isinstance(part, str) and part for part in given):
        return None
    subject, attribute, value = (_plain(str(part)) for part in given)
    if re.fullmatch(f"(?:current )?(?:{SINGLE}|{FAVOURITE})", attribute) is None:
        return None
    return Statement((subject, attribute.removeprefix("current ")), content_words(split_words(value)))


def _polarity(text: str) -> Statement:
    """What is said, apart from whether it is said or denied."""
    rest, denials = NEGATION.subn(" ", text)
    said = frozenset(_stem(word) for word in content_words(split_words(rest)))
    return Statement(said, frozenset({"no" if denials % 2 else "yes"}))


def _stem(word: str) -> str:
    """`eats`, `eating` → `eat`: as far as a negation changes a verb."""
    ends = (end for end in ("ing", "es", "s") if len(word) > len(end) + 2 and word.endswith(end))
    return word.removesuffix(next(ends, ""))


def _plain(text: str) -> str:
    said = " ".join(word for word in split_words(text) if word not in FILLERS or word in ("i", "my"))
    return said.replace("favorite", "favourite").replace("color", "colour")


def find_contradictions(survey: Snapshot) -> dict[int, int]:
    """The place of each fact that no longer holds → the place of the one that contradicts it."""
    about: dict[Hashable, list[tuple[int, frozenset[str]]]] = defaultdict(list)
    for place, memory in enumerate(survey.memories):
        if memory.kind == "fact":
            for claim in statements(memory):
                about[claim.topic].append((place, claim.value))
    found: dict[int, int] = {}
    for claimed in about.values():
        found |= _superseded(survey, claimed)
    return found


def _superseded(survey: Snapshot, claimed: Sequence[tuple[int, frozenset[str]]]) -> dict[int, int]:
    """Each claim that a later one contradicts → the first that does. Of two of the same time nobody knows."""
    ordered = sorted(claimed, key=lambda claim: (valid_since(survey.memories[claim[0]]), claim[0]))
    found = {}
    for index, (place, value) in enumerate(ordered):
        for later, other in ordered[index + 1 :]:
            if not (value <= other or other <= value) and valid_since(survey.memories[later]) > valid_since(
                survey.memories[place]
            ):
                found[place] = later
                break
    return found


def valid_since(memory: ScannedMemory) -> datetime:
    """Since when a fact holds."""
    return memory.valid_from or memory.occurred_at

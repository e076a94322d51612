"""Find contradictions among facts: a newer fact that states another value of the same attribute closes the older one.

A fact states its `subject`, `attribute` and `value` in its metadata, or in a sentence of a known pattern. Only facts
about attributes with one value at a time can contradict each other: somebody who likes sushi may like pizza too. In
addition a fact contradicts one that says the same with a negation.
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

#: Attributes with one value at a time, beside `favourite …`.
SINGLE_VALUED = (
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
    """A sentence that states a value of an attribute; None if the sentence contains the attribute's name."""

    attribute: str | None
    pattern: re.Pattern[str]


def _sentence(attribute: str | None, rest: str) -> SentencePattern:
    return SentencePattern(attribute, re.compile(f"{SUBJECT}{rest}", re.IGNORECASE))


SENTENCES = (
    _sentence(None, rf"(?:'s|\u2019s|(?<=my)|(?<=his)|(?<=her)|(?<=their)|(?<=our)) (?:current |new )?"
                    rf"(?P<attribute>{SINGLE_VALUED}|{FAVOURITE})(?: is|'s){NOW} {VALUE}"),
    _sentence("home", rf"{NOW} (?:lives?|resides?|(?:is|am) (?:living|based)|(?:has |have )?(?:just )?moved)"
                      rf"{NOW} (?:in|at|to) {VALUE}"),
    _sentence("employer", rf"{NOW} (?:works?|(?:is|am) working|(?:is|am) employed){NOW} (?:at|for) {VALUE}"),
    _sentence("job", rf"{NOW} (?:works?|(?:is|am) working){NOW} as {VALUE}"),
    _sentence("age", rf" (?:is|am){NOW} (?P<value>\d{{1,3}}) years old"),
    _sentence("name", rf" (?:is|am) (?:called|named) {VALUE}"),
    _sentence("partner", rf" (?:is|am){NOW} (?:married|engaged) to {VALUE}"),
    _sentence("birthday", rf" was born (?:on|in) {VALUE}"),
    _sentence("relationship status", rf" (?:is|am){NOW} (?P<value>single|married|engaged|divorced|widowed)"),
    _sentence("diet", rf" (?:is|am){NOW} (?:an? )?(?P<value>vegetarian|vegan|pescatarian|omnivore)"),
)  # fmt: skip

NEGATION = re.compile(
    r"\b(?:(?:does|do|is|am|are|has|have)(?: not| no longer|n['\u2019]t)|(?:has|have) no"
    r"|no longer|not|never|stopped|quit)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """The statement of a fact about a topic. The value is a set of content words."""

    topic: Hashable
    value: frozenset[str]

    def contradicts(self, other: "Statement") -> bool:
        """Return whether two statements about the same topic differ: neither value contains the other."""
        return not (self.value <= other.value or other.value <= self.value)


def statements(fact: ScannedMemory | Fact) -> Iterator[Statement]:
    """Yield the statements of a fact: that of its metadata, or those recognised in its text."""
    declared = _declared_statement(fact)
    if declared is not None:
        yield declared
        return
    text = fact.text.strip().rstrip(".!")
    for sentence in SENTENCES:
        if (match := sentence.pattern.fullmatch(text)) is not None:
            attribute = sentence.attribute or _normalise(match["attribute"])
            yield Statement((_normalise(match["subject"]), attribute), content_words(split_words(match["value"])))
            break
    yield _polarity(text)


def _declared_statement(fact: ScannedMemory | Fact) -> Statement | None:
    """Return the statement in a fact's metadata; None without one about a single-valued attribute."""
    parts = [fact.metadata.get(name) for name in ("subject", "attribute", "value")]
    if not all(isinstance(part, str) and part for part in parts):
        return None
    subject, attribute, value = (_normalise(str(part)) for part in parts)
    if re.fullmatch(f"(?:current )?(?:{SINGLE_VALUED}|{FAVOURITE})", attribute) is None:
        return None
    return Statement((subject, attribute.removeprefix("current ")), content_words(split_words(value)))


def _polarity(text: str) -> Statement:
    """Return a statement whose topic is the text without negations, and whose value is whether it is negated."""
    rest, negations = NEGATION.subn(" ", text)
    topic = frozenset(_stem(word) for word in content_words(split_words(rest)))
    return Statement(topic, frozenset({"no" if negations % 2 else "yes"}))


def _stem(word: str) -> str:
    """Remove the endings by which a negation changes a verb: `eats`, `eating` → `eat`."""
    endings = (ending for ending in ("ing", "es", "s") if len(word) > len(ending) + 2 and word.endswith(ending))
    return word.removesuffix(next(endings, ""))


def _normalise(text: str) -> str:
    words = " ".join(word for word in split_words(text) if word not in FILLERS or word in ("i", "my"))
    return words.replace("favorite", "favourite").replace("color", "colour")


def find_contradictions(snapshot: Snapshot) -> dict[int, int]:
    """Return the position of each contradicted fact → that of the first newer fact that contradicts it."""
    by_topic: dict[Hashable, list[tuple[int, Statement]]] = defaultdict(list)
    for position, memory in enumerate(snapshot.memories):
        if memory.kind == "fact":
            for statement in statements(memory):
                by_topic[statement.topic].append((position, statement))
    found: dict[int, int] = {}
    for on_topic in by_topic.values():
        found |= _contradicted(snapshot, on_topic)
    return found


def _contradicted(snapshot: Snapshot, on_topic: Sequence[tuple[int, Statement]]) -> dict[int, int]:
    """Map contradicted positions among statements on one topic. Facts of the same time do not contradict each other."""
    ordered = sorted(on_topic, key=lambda each: (valid_since(snapshot.memories[each[0]]), each[0]))
    found = {}
    for index, (position, statement) in enumerate(ordered):
        since = valid_since(snapshot.memories[position])
        for newer, other in ordered[index + 1 :]:
            if statement.contradicts(other) and valid_since(snapshot.memories[newer]) > since:
                found[position] = newer
                break
    return found


def valid_since(memory: ScannedMemory) -> datetime:
    """Return the start of a fact's validity."""
    return memory.valid_from or memory.occurred_at

"""Probes: questions made from what the user has said before, with the memories that should come up.

Of three kinds: the rarest words of a memory, of those that are to be closed and of others, where it or what stands for
it should be found; and questions that were asked, where what was said next should be found, the question itself left
out. They follow from the memories alone, so that the same space is asked the same.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.platform.database import Connection
from pipelines.memory import terms
from pipelines.memory.meditation.snapshot import Snapshot
from pipelines.memory.meditation.transaction_database import TransactionDatabase
from pipelines.memory.recall import Query, recall
from pipelines.memory.store import Embed

#: Probes of each kind, at most.
EACH = 16

#: Hits that are looked at.
AT = 10

#: Words of a key phrase, and how many a memory must have for one.
PHRASE, ENOUGH = 4, 4

#: Turns behind a question that may answer it.
REACH = 2


@dataclass(frozen=True, slots=True)
class Probe:
    """A question; any of `expected` among the hits will do. `asked` is the memory that it was, and so is no answer."""

    query: str
    expected: frozenset[str]
    asked: str | None = None


def build_probes(survey: Snapshot, closing: Mapping[int, int]) -> list[Probe]:
    """The probes of a space, where places are about to be closed in favour of others."""
    stands_for = {place: _last(place, closing) for place in closing}
    frequency = Counter(word for content in survey.content for word in content)
    telling = [
        place
        for place, memory in enumerate(survey.memories)
        if memory.kind != "insight" and len(survey.content[place]) >= ENOUGH and not terms.is_question(memory.text)
    ]
    phrases = [*_some(survey, set(telling) & set(closing)), *_some(survey, set(telling) - set(closing))]
    return [
        *(Probe(_phrase(survey, place, frequency), _names(survey, place, stands_for)) for place in phrases),
        *_questions(survey, stands_for),
    ]


def _last(place: int, closing: Mapping[int, int]) -> int:
    """What stands for a place in the end."""
    seen = {place}
    while (following := closing.get(place)) is not None and following not in seen:
        seen.add(following)
        place = following
    return place


def _names(survey: Snapshot, place: int, stands_for: Mapping[int, int]) -> frozenset[str]:
    return frozenset(survey.memories[each].id for each in (place, stands_for.get(place, place)))


def _some(survey: Snapshot, places: Iterable[int]) -> list[int]:
    """A few of these, spread evenly and always the same."""
    digest = {place: hashlib.sha256(survey.memories[place].id.encode()).digest() for place in places}
    return sorted(digest, key=digest.__getitem__)[:EACH]


def _phrase(survey: Snapshot, place: int, frequency: Mapping[str, int]) -> str:
    """The rarest words of a memory, in their order."""
    rarest = set(sorted(survey.content[place], key=lambda word: (frequency[word], word))[:PHRASE])
    said = dict.fromkeys(word for word in survey.words[place] if word in rarest or word.removesuffix("s") in rarest)
    return " ".join(said or sorted(rarest))


def _questions(survey: Snapshot, stands_for: Mapping[int, int]) -> list[Probe]:
    """Questions that were asked, and what was said next in the same conversation."""
    conversations: dict[str, list[int]] = defaultdict(list)
    for place, memory in enumerate(survey.memories):
        if memory.conversation_id is not None and memory.kind == "episode":
            conversations[memory.conversation_id].append(place)
    answers: dict[int, Sequence[int]] = {}
    for places in conversations.values():
        places.sort(key=lambda place: (survey.memories[place].occurred_at, place))
        for at, place in enumerate(places):
            if terms.is_question(survey.memories[place].text) and len(survey.content[place]) >= ENOUGH - 1:
                answers[place] = places[at + 1 : at + 1 + REACH]
    asked = _some(survey, (place for place, following in answers.items() if following))
    return [
        Probe(
            survey.memories[place].text,
            frozenset[str]().union(*(_names(survey, each, stands_for) for each in answers[place])),
            survey.memories[place].id,
        )
        for place in asked
    ]


class RecallEvaluator:
    """Asks probes of a space as a transaction sees it. What there is to embed is embedded before, under no lock."""

    def __init__(self, embed: Embed, asked: Sequence[Probe], account_id: str, user_id: str, now: datetime) -> None:
        self._embed = embed
        self._asked = asked
        self._account_id = account_id
        self._user_id = user_id
        self._now = now
        self._known: dict[str, list[float]] = {}

    def embed_queries(self, speakers: Sequence[str]) -> None:
        """Embed the questions as recall will ask for them."""
        texts = list(dict.fromkeys(terms.parse_query(probe.query, speakers).text for probe in self._asked))
        for begin in range(0, len(texts), EACH):
            some = texts[begin : begin + EACH]
            self._known.update(zip(some, self._embed(some), strict=True))

    def report(self, before: float | None, after: float | None) -> dict[str, Any]:
        """For the report."""
        return {"probes": len(self._asked), "at": AT, "before": before, "after": after}

    def evaluate(self, connection: Connection) -> float | None:
        """The share of probes that find what they should among the first AT hits; None without probes."""
        found = [self._finds(TransactionDatabase(connection), probe) for probe in self._asked]
        return round(sum(found) / len(found), 4) if found else None

    def _finds(self, inside: TransactionDatabase, probe: Probe) -> bool:
        query = Query(probe.query, AT + (probe.asked is not None))
        hits = recall(inside, self._vectors, self._account_id, self._user_id, query, self._now)
        answers = [hit.memory.id for hit in hits if hit.memory.id != probe.asked]
        return not probe.expected.isdisjoint(answers[:AT])

    def _vectors(self, texts: Sequence[str]) -> list[list[float]]:
        for text in texts:
            if text not in self._known:
                self._known[text] = self._embed([text])[0]
        return [self._known[text] for text in texts]

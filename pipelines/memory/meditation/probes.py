"""Measure recall by probes: queries derived from the memories themselves, with the memories they should find.

Three kinds: the rarest words of a memory that is to be closed, and of one that is not, which should find it or its
replacement; and questions from conversations, which should find one of the next turns, but not themselves. Probes
depend on the memories alone, so that the same space gets the same probes.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.memory.spaces import SpaceKey
from models.platform.database import Connection
from pipelines.memory import terms
from pipelines.memory.meditation.snapshot import Snapshot
from pipelines.memory.meditation.transaction_database import TransactionDatabase
from pipelines.memory.recall import Query, recall
from pipelines.memory.store import Embed

#: The most probes of each kind.
PROBES_PER_KIND = 16

#: The rank cutoff: recall at 10.
CUTOFF = 10

#: Words of a phrase, the least content words of a memory for one, and of a question.
PHRASE_WORDS, MIN_CONTENT_WORDS, MIN_QUESTION_WORDS = 4, 4, 3

#: Turns after a question that count as its answer.
ANSWER_TURNS = 2


@dataclass(frozen=True, slots=True)
class Probe:
    """A query and its relevant memories.

    expected     any of these among the hits counts as found
    question_id  the memory that the query is taken from, which is ignored among the hits
    """

    query: str
    expected: frozenset[str]
    question_id: str | None = None


def build_probes(snapshot: Snapshot, closing: Mapping[int, int]) -> list[Probe]:
    """Build the probes of a space.

    closing  positions of memories that are to be closed → positions of their replacements
    """
    replacements = {position: _final_replacement(position, closing) for position in closing}
    frequencies = Counter(word for content in snapshot.content for word in content)
    eligible = {
        position
        for position, memory in enumerate(snapshot.memories)
        if memory.kind != "insight"
        and len(snapshot.content[position]) >= MIN_CONTENT_WORDS
        and not terms.is_question(memory.text)
    }
    sampled = [*_sample(snapshot, eligible & set(closing)), *_sample(snapshot, eligible - set(closing))]
    return [
        *(
            Probe(_phrase(snapshot, position, frequencies), _expected(snapshot, position, replacements))
            for position in sampled
        ),
        *_question_probes(snapshot, replacements),
    ]


def _final_replacement(position: int, closing: Mapping[int, int]) -> int:
    """Follow the chain of replacements to its end."""
    seen = {position}
    while (following := closing.get(position)) is not None and following not in seen:
        seen.add(following)
        position = following
    return position


def _expected(snapshot: Snapshot, position: int, replacements: Mapping[int, int]) -> frozenset[str]:
    return frozenset(snapshot.memories[each].id for each in (position, replacements.get(position, position)))


def _sample(snapshot: Snapshot, positions: Iterable[int]) -> list[int]:
    """Return at most PROBES_PER_KIND positions, pseudo-random but always the same: the least hashes of the ids."""
    hashes = {position: hashlib.sha256(snapshot.memories[position].id.encode()).digest() for position in positions}
    return sorted(hashes, key=hashes.__getitem__)[:PROBES_PER_KIND]


def _phrase(snapshot: Snapshot, position: int, frequencies: Mapping[str, int]) -> str:
    """Return the rarest words of a memory, in their order."""
    rarest = set(sorted(snapshot.content[position], key=lambda word: (frequencies[word], word))[:PHRASE_WORDS])
    words = snapshot.words[position]
    phrase = dict.fromkeys(word for word in words if word in rarest or word.removesuffix("s") in rarest)
    return " ".join(phrase or sorted(rarest))


def _question_probes(snapshot: Snapshot, replacements: Mapping[int, int]) -> list[Probe]:
    """Build probes from questions in conversations, each with the turns that follow it."""
    conversations: dict[str, list[int]] = defaultdict(list)
    for position, memory in enumerate(snapshot.memories):
        if memory.conversation_id is not None and memory.kind == "episode":
            conversations[memory.conversation_id].append(position)
    answers: dict[int, Sequence[int]] = {}
    for positions in conversations.values():
        positions.sort(key=lambda position: (snapshot.memories[position].occurred_at, position))
        for index, position in enumerate(positions):
            long_enough = len(snapshot.content[position]) >= MIN_QUESTION_WORDS
            if terms.is_question(snapshot.memories[position].text) and long_enough:
                answers[position] = positions[index + 1 : index + 1 + ANSWER_TURNS]
    questions = _sample(snapshot, (position for position, following in answers.items() if following))
    return [
        Probe(
            snapshot.memories[position].text,
            frozenset[str]().union(*(_expected(snapshot, each, replacements) for each in answers[position])),
            snapshot.memories[position].id,
        )
        for position in questions
    ]


class RecallEvaluator:
    """Measures recall of probes in a transaction. Queries are embedded beforehand, while no lock is held."""

    def __init__(self, embed: Embed, probes: Sequence[Probe], key: SpaceKey, now: datetime) -> None:
        self._embed = embed
        self._probes = probes
        self._key = key
        self._now = now
        self._vectors: dict[str, list[float]] = {}

    def embed_queries(self, speakers: Sequence[str]) -> None:
        """Embed the texts that recall will embed for the probes in a space with these speakers."""
        texts = list(dict.fromkeys(terms.parse_query(probe.query, speakers).text for probe in self._probes))
        for start in range(0, len(texts), PROBES_PER_KIND):
            batch = texts[start : start + PROBES_PER_KIND]
            self._vectors.update(zip(batch, self._embed(batch), strict=True))

    def report(self, before: float | None, after: float | None) -> dict[str, Any]:
        """Return the recall section of a meditation's report."""
        return {"probes": len(self._probes), "at": CUTOFF, "before": before, "after": after}

    def evaluate(self, connection: Connection) -> float | None:
        """Return the share of probes that find an expected memory among the first CUTOFF hits; None without probes."""
        found = [self._is_found(TransactionDatabase(connection), probe) for probe in self._probes]
        return round(sum(found) / len(found), 4) if found else None

    def _is_found(self, database: TransactionDatabase, probe: Probe) -> bool:
        query = Query(probe.query, CUTOFF + (probe.question_id is not None))
        hits = recall(database, self._embed_cached, self._key, query, self._now)
        ids = [hit.memory.id for hit in hits if hit.memory.id != probe.question_id]
        return not probe.expected.isdisjoint(ids[:CUTOFF])

    def _embed_cached(self, texts: Sequence[str]) -> list[list[float]]:
        for text in texts:
            if text not in self._vectors:
                self._vectors[text] = self._embed([text])[0]
        return [self._vectors[text] for text in texts]

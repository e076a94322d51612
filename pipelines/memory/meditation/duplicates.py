"""Detect near-duplicates: memories that say what another one says, and nothing else.

A wrong merge loses information, a missed one costs a row; so all of these must agree: speaker and kind, numbers and
negations, and nearly the vector and the words. Two texts that each have a word of their own ("the red one", "the blue
one") are no duplicates. Events recur: a text that may describe an event is a duplicate only of one of the same day.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from models.memory.scan import ScannedMemory
from pipelines.memory.meditation.snapshot import Snapshot
from pipelines.memory.terms import is_question
from pipelines.memory.words import TRIMMINGS, distinguishing_words, states_lasting_fact

#: The least cosine of two duplicates, and the least share of the longer text's words that the shorter has.
MIN_COSINE, MIN_OVERLAP = 0.9, 0.75

#: The fewest content words of a duplicate: "Sounds good" may be said twice.
MIN_CONTENT_WORDS = 2

#: The longest time between two reports of one event, such as a message sent again or a conversation imported twice.
SAME_EVENT = timedelta(hours=6)


class Duplicates:
    """Finds the near-duplicates of a snapshot. `found` maps each duplicate's position to that of the memory to keep."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.found: dict[int, int] = {}

    def find(
        self, pairs: NDArray[np.int64], cosines: NDArray[np.float32], exclude: Iterable[int] = ()
    ) -> dict[int, int]:
        """Find duplicates among near pairs and equal texts, without the positions in `exclude`."""
        excluded = set(exclude)
        near = pairs[cosines >= MIN_COSINE].tolist()
        # In descending order of value, so that a memory that is kept is never a duplicate itself.
        candidates = {tuple(sorted(pair, key=self._value)) for pair in (*near, *self._equal_pairs())}
        for worse, better in sorted(candidates, key=lambda pair: (self._value(pair[1]), self._value(pair[0])))[::-1]:
            better = self.found.get(better, better)
            if (
                not {worse, better} & excluded
                and worse not in self.found
                and worse != better
                and self._is_duplicate(worse, better)
            ):
                self.found[worse] = better
        return self.found

    def _equal_pairs(self) -> Iterator[tuple[int, int]]:
        """Yield each memory with the most valuable one of the same kind, speaker and words."""
        equal: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for position, memory in enumerate(self._snapshot.memories):
            equal[memory.kind, memory.speaker, " ".join(self._snapshot.words[position])].append(position)
        for positions in equal.values():
            best = max(positions, key=self._value)
            yield from ((position, best) for position in positions if position != best)

    def _value(self, position: int) -> tuple[int, int, float, int]:
        """Return the sort key that decides which memory is kept: more content, then more recalls, then newer."""
        memory = self._snapshot.memories[position]
        return len(self._snapshot.content[position]), memory.recalled, memory.occurred_at.timestamp(), position

    def _is_duplicate(self, worse: int, better: int) -> bool:
        left, right = self._snapshot.memories[worse], self._snapshot.memories[better]
        if left.kind != right.kind or left.kind == "insight" or left.speaker != right.speaker:
            return False
        return self._same_words(worse, better) and self._near(worse, better) and self._same_event(left, right, worse)

    def _same_words(self, worse: int, better: int) -> bool:
        if len(self._snapshot.content[worse]) < MIN_CONTENT_WORDS:
            return False
        left, right = self._snapshot.words[worse], self._snapshot.words[better]
        fewer, more = frozenset(left) - TRIMMINGS, frozenset(right) - TRIMMINGS
        overlap = fewer <= more and len(fewer) >= MIN_OVERLAP * len(more)
        return overlap and distinguishing_words(left) == distinguishing_words(right)

    def _near(self, worse: int, better: int) -> bool:
        vectors = self._snapshot.vectors[[worse, better]].astype(np.float32)
        return bool(vectors[0] @ vectors[1] >= MIN_COSINE)

    def _same_event(self, left: ScannedMemory, right: ScannedMemory, worse: int) -> bool:
        """Return whether both describe the same event, or none."""
        if left.kind == "fact" or abs(left.occurred_at - right.occurred_at) <= SAME_EVENT:
            return True
        return states_lasting_fact(self._snapshot.words[worse]) and not is_question(left.text)

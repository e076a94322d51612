"""Near-duplicates: memories that say what another one says already, and nothing besides.

To take two things for one loses something, to miss a repetition costs a line; so all signs must agree: the same speaker
and kind, nearly the same vector, nearly the same words, the same numbers and negations. What differs in a word on both
sides ("the red one", "the blue one") is no repetition. And what happens on a day may happen again on another: a text
that may tell of an event repeats only one of the same day.
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

#: The least cosine of two vectors, and how much of the longer text the shorter one has.
CLOSE, OVERLAP = 0.9, 0.75

#: The fewest words, besides fillers, that are worth comparing: "Sounds good" says nothing twice.
FEWEST = 2

#: How far apart two tellings of one event may be: a message that was sent again, a session that was imported twice.
SAME_EVENT = timedelta(hours=6)


class Duplicates:
    """Finds what repeats. `found` is place → the place of what stands for it."""

    def __init__(self, survey: Snapshot) -> None:
        self._survey = survey
        self.found: dict[int, int] = {}

    def find(self, pairs: NDArray[np.int64], cosines: NDArray[np.float32], but: Iterable[int] = ()) -> dict[int, int]:
        """What repeats something, among near pairs and equal words; `but` leaves places out."""
        out = set(but)
        near = pairs[cosines >= CLOSE].tolist()
        # The best of all is looked at first: what repeats it does not itself stand for anything.
        candidates = {tuple(sorted(pair, key=self._worth)) for pair in (*near, *self._equal())}
        for worse, better in sorted(candidates, key=lambda pair: (self._worth(pair[1]), self._worth(pair[0])))[::-1]:
            better = self.found.get(better, better)
            if (
                not {worse, better} & out
                and worse not in self.found
                and worse != better
                and self._repeats(worse, better)
            ):
                self.found[worse] = better
        return self.found

    def _equal(self) -> Iterator[tuple[int, int]]:
        """Memories of the same words, each with the best of them, however many they are."""
        alike: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for place, memory in enumerate(self._survey.memories):
            alike[memory.kind, memory.speaker, " ".join(self._survey.words[place])].append(place)
        for places in alike.values():
            best = max(places, key=self._worth)
            yield from ((place, best) for place in places if place != best)

    def _worth(self, place: int) -> tuple[int, int, float, int]:
        """What to keep of two: who says more, was of more use, is younger."""
        memory = self._survey.memories[place]
        return len(self._survey.content[place]), memory.recalled, memory.occurred_at.timestamp(), place

    def _repeats(self, worse: int, better: int) -> bool:
        one, other = self._survey.memories[worse], self._survey.memories[better]
        if one.kind != other.kind or one.kind == "insight" or one.speaker != other.speaker:
            return False
        return self._same_words(worse, better) and self._near(worse, better) and self._same_event(one, other, worse)

    def _same_words(self, worse: int, better: int) -> bool:
        if len(self._survey.content[worse]) < FEWEST:
            return False
        said, more = self._survey.words[worse], self._survey.words[better]
        few, many = frozenset(said) - TRIMMINGS, frozenset(more) - TRIMMINGS
        return (
            few <= many and len(few) >= OVERLAP * len(many) and distinguishing_words(said) == distinguishing_words(more)
        )

    def _near(self, worse: int, better: int) -> bool:
        vectors = self._survey.vectors[[worse, better]].astype(np.float32)
        return bool(vectors[0] @ vectors[1] >= CLOSE)

    def _same_event(self, one: ScannedMemory, other: ScannedMemory, worse: int) -> bool:
        if one.kind == "fact" or abs(one.occurred_at - other.occurred_at) <= SAME_EVENT:
            return True
        return states_lasting_fact(self._survey.words[worse]) and not is_question(one.text)

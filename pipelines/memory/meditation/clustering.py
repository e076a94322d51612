"""Groups of related memories: what is near in meaning, and shares words where it is not very near.

Each group gathers around one memory, which has the most neighbours, so that no chain of small steps makes one group of
all that was ever said.
"""

from collections import defaultdict
from collections.abc import Container, Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.memory.meditation.snapshot import Snapshot

#: The least cosine of two related memories, and of those that have no word in common.
RELATED, RELATED_WITHOUT_WORDS = 0.5, 0.65

#: Neighbours of each that are looked at.
MOST_NEIGHBOURS = 16

#: Memories of a group.
SMALLEST, LARGEST = 4, 12


def find_groups(
    survey: Snapshot, pairs: NDArray[np.int64], cosines: NDArray[np.float32], but: Container[int]
) -> list[Sequence[int]]:
    """Groups of places, the largest first, each in the order of time. `but` leaves places out."""
    near: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for (left, right), cosine in zip(pairs.tolist(), cosines.tolist(), strict=True):
        if left not in but and right not in but and _related(survey, left, right, cosine):
            near[left].append((-cosine, right))
            near[right].append((-cosine, left))
    found, taken = list[Sequence[int]](), set[int]()
    for place in sorted(near, key=lambda place: (-len(near[place]), place)):
        members = _different(survey, [place, *(other for _, other in sorted(near[place]) if other not in taken)])
        if place not in taken and len(members) >= SMALLEST:
            taken.update(members)
            found.append(sorted(members, key=lambda member: (survey.memories[member].occurred_at, member)))
    return sorted(found, key=lambda group: (-len(group), group))


def _different(survey: Snapshot, places: Sequence[int]) -> list[int]:
    """The first of these, without those that say what one before them says."""
    about: dict[frozenset[str], int] = {}
    for place in places:
        about.setdefault(survey.content[place], place)
    return list(about.values())[:LARGEST]


def _related(survey: Snapshot, left: int, right: int, cosine: float) -> bool:
    kinds = {survey.memories[left].kind, survey.memories[right].kind}
    if "insight" in kinds or cosine < RELATED:
        return False
    return cosine >= RELATED_WITHOUT_WORDS or not survey.content[left].isdisjoint(survey.content[right])

"""Cluster memories into groups of related ones.

Two memories are related if their vectors are near, and, unless they are very near, if they share a content word. A
group consists of one memory and its neighbours (a star), so that chains of small steps do not merge everything into one
group, as single-linkage clustering would.
"""

from collections import defaultdict
from collections.abc import Container, Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.memory.meditation.snapshot import Snapshot

#: The least cosine of two related memories, and of two without a common content word.
MIN_RELATED_COSINE, MIN_COSINE_WITHOUT_COMMON_WORD = 0.5, 0.65

#: The nearest neighbours of each memory that are considered.
NEIGHBOURS = 16

#: Memories of a group.
MIN_GROUP_SIZE, MAX_GROUP_SIZE = 4, 12


def find_groups(
    snapshot: Snapshot, pairs: NDArray[np.int64], cosines: NDArray[np.float32], exclude: Container[int]
) -> list[Sequence[int]]:
    """Return groups of positions, the largest first, each in chronological order.

    Greedy: the memory with the most neighbours forms the first group with those not yet in a group.
    """
    near: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for (left, right), cosine in zip(pairs.tolist(), cosines.tolist(), strict=True):
        if left not in exclude and right not in exclude and _related(snapshot, left, right, cosine):
            near[left].append((-cosine, right))
            near[right].append((-cosine, left))
    groups, grouped = list[Sequence[int]](), set[int]()
    for centre in sorted(near, key=lambda position: (-len(near[position]), position)):
        free = [other for _, other in sorted(near[centre]) if other not in grouped]
        members = _distinct(snapshot, [centre, *free])
        if centre not in grouped and len(members) >= MIN_GROUP_SIZE:
            grouped.update(members)
            groups.append(sorted(members, key=lambda member: (snapshot.memories[member].occurred_at, member)))
    return sorted(groups, key=lambda group: (-len(group), group))


def _distinct(snapshot: Snapshot, positions: Sequence[int]) -> list[int]:
    """Return the first MAX_GROUP_SIZE of these, without those whose content words equal an earlier one's."""
    by_content: dict[frozenset[str], int] = {}
    for position in positions:
        by_content.setdefault(snapshot.content[position], position)
    return list(by_content.values())[:MAX_GROUP_SIZE]


def _related(snapshot: Snapshot, left: int, right: int, cosine: float) -> bool:
    kinds = {snapshot.memories[left].kind, snapshot.memories[right].kind}
    if "insight" in kinds or cosine < MIN_RELATED_COSINE:
        return False
    if cosine >= MIN_COSINE_WITHOUT_COMMON_WORD:
        return True
    return not snapshot.content[left].isdisjoint(snapshot.content[right])

"""Compute the importance of memories, which decays while a memory is unused and rises with use.

    importance = FLOOR + (peak - FLOOR) · 2^(-idle / half_life)

    peak       INITIAL + (1 - INITIAL) · (1 - 2^(-recalls / HALF_RISE))
    idle       days since the last recall, or since the memory was written
    half_life  HALF_LIFE · (1 + log2(1 + recalls)): each doubling of recalls slows the decay (the spacing effect:
               Cepeda et al., 2006)

It depends only on the row and the time, so that a second meditation changes nothing.
"""

import math
from collections.abc import Iterator
from datetime import datetime

from models.memory.scan import ScannedMemory
from pipelines.memory.meditation.snapshot import Snapshot

#: The importance of a new memory, and the lowest one.
INITIAL, FLOOR = 0.5, 0.1

#: The half-life in days of a memory that was never recalled, and the recalls that halve the distance of its peak to 1.
HALF_LIFE, HALF_RISE = 180.0, 5.0

#: The least change that is written.
MIN_CHANGE = 0.02

SECONDS_PER_DAY = 86_400.0


def importance_at(memory: ScannedMemory, now: datetime) -> float:
    """Return a memory's importance (0 to 1) at a time."""
    peak = INITIAL + (1 - INITIAL) * (1 - 2 ** (-memory.recalled / HALF_RISE))
    last_used = max(memory.created_at, memory.recalled_at or memory.created_at)
    idle = max(0.0, (now - last_used).total_seconds() / SECONDS_PER_DAY)
    half_life = HALF_LIFE * (1 + math.log2(1 + memory.recalled))
    return float(round(FLOOR + (peak - FLOOR) * 2 ** (-idle / half_life), 3))


def _is_computed(memory: ScannedMemory) -> bool:
    """Return whether a memory has its initial importance or the last meditation's, and not one that a user set."""
    return abs(memory.importance - (INITIAL if memory.weighed is None else memory.weighed)) < 1e-6


def importance_changes(snapshot: Snapshot, now: datetime) -> Iterator[tuple[int, float]]:
    """Yield the positions of memories whose importance changes, with the new value."""
    for position, memory in enumerate(snapshot.memories):
        if _is_computed(memory) and abs((value := importance_at(memory, now)) - memory.importance) >= MIN_CHANGE:
            yield position, value

"""Importance: it fades while nobody asks for a memory, and rises with use. It follows from the row and the time alone,
so that meditating twice is meditating once.

    importance = FLOOR + (peak - FLOOR) · 2^(-idle / half-life)

`peak` goes from START to 1 with uses; `idle` are days since the last use, or since it was written; and each doubling of
uses makes it fade that much slower (the spacing effect: Cepeda et al. 2006).
"""

import math
from collections.abc import Iterator
from datetime import datetime

from models.memory.scan import ScannedMemory
from pipelines.memory.meditation.snapshot import Snapshot

#: What a memory begins with, and what it never falls below.
START, FLOOR = 0.5, 0.1

#: Days after which half of it has faded where it was never used, and uses after which half the way up is gone.
HALF_LIFE, HALF_RISE = 180.0, 5.0

#: The least change that is worth a row.
STEP = 0.02

DAY = 86_400.0


def importance_at(memory: ScannedMemory, now: datetime) -> float:
    """How important a memory is by now."""
    peak = START + (1 - START) * (1 - 2 ** (-memory.recalled / HALF_RISE))
    idle = max(0.0, (now - max(memory.created_at, memory.recalled_at or memory.created_at)).total_seconds() / DAY)
    half_life = HALF_LIFE * (1 + math.log2(1 + memory.recalled))
    return float(round(FLOOR + (peak - FLOOR) * 2 ** (-idle / half_life), 3))


def _ours(memory: ScannedMemory) -> bool:
    """Whether its importance is what it began with or what a meditation has made of it, and nobody's own word."""
    return abs(memory.importance - (START if memory.weighed is None else memory.weighed)) < 1e-6


def importance_changes(survey: Snapshot, now: datetime) -> Iterator[tuple[int, float]]:
    """The places of memories whose importance is to change, and what it is to be."""
    for place, memory in enumerate(survey.memories):
        if _ours(memory) and abs((by_now := importance_at(memory, now)) - memory.importance) >= STEP:
            yield place, by_now

"""Analyse a snapshot: find near-duplicates, contradicted facts and groups of related memories."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.jobs.attempt_context import Attempt
from pipelines.memory.meditation.clustering import MIN_RELATED_COSINE, NEIGHBOURS, find_groups
from pipelines.memory.meditation.contradictions import find_contradictions
from pipelines.memory.meditation.duplicates import Duplicates
from pipelines.memory.meditation.neighbours import near_pairs
from pipelines.memory.meditation.snapshot import Snapshot, read_snapshot


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was found in a snapshot, by positions of memories.

    duplicates      position → that of the memory that it repeats
    contradictions  position → that of the newer fact that contradicts it
    groups          positions of related memories
    """

    snapshot: Snapshot
    duplicates: dict[int, int]
    contradictions: dict[int, int]
    groups: Sequence[Sequence[int]]


def analyse(attempt: Attempt, space_id: int) -> Analysis:
    """Read and analyse a space. Raises the reason to stop."""
    snapshot = read_snapshot(attempt, space_id)
    attempt.report_progress(1, 4, note="memories read")
    return analyse_snapshot(snapshot, attempt)


def analyse_snapshot(snapshot: Snapshot, attempt: Attempt | None = None) -> Analysis:
    """Analyse a snapshot. Raises the attempt's reason to stop."""
    check = attempt.check if attempt else lambda: None
    pairs, cosines = near_pairs(snapshot.vectors, least=MIN_RELATED_COSINE, most=NEIGHBOURS, check=check)
    contradictions = find_contradictions(snapshot)
    duplicates = Duplicates(snapshot).find(pairs, cosines, exclude=contradictions)
    check()
    groups = find_groups(snapshot, pairs, cosines, {*contradictions, *duplicates})
    return Analysis(snapshot, duplicates, contradictions, groups)

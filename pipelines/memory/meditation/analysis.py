"""What a look at all memories finds: what repeats, what no longer holds, what belongs together."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.jobs.attempt_context import Attempt
from pipelines.memory.meditation import contradictions
from pipelines.memory.meditation.clustering import MOST_NEIGHBOURS, RELATED, find_groups
from pipelines.memory.meditation.duplicates import Duplicates
from pipelines.memory.meditation.neighbours import near_pairs
from pipelines.memory.meditation.snapshot import Snapshot, read_snapshot


@dataclass(frozen=True, slots=True)
class Analysis:
    """Of a survey: places that repeat others or that others contradict, each → the other one, and groups of places."""

    snapshot: Snapshot
    duplicates: dict[int, int]
    contradictions: dict[int, int]
    groups: Sequence[Sequence[int]]


def analyse(attempt: Attempt, space_id: int) -> Analysis:
    """Look at all memories of a space. Raises the reason to stop."""
    survey = read_snapshot(attempt, space_id)
    attempt.report_progress(1, 4, note="memories read")
    return analyse_snapshot(survey, attempt)


def analyse_snapshot(survey: Snapshot, attempt: Attempt | None = None) -> Analysis:
    """What there is to find in a survey."""
    check = attempt.check if attempt else lambda: None
    near, cosines = near_pairs(survey.vectors, least=RELATED, most=MOST_NEIGHBOURS, check=check)
    contradicted = contradictions.find_contradictions(survey)
    repeated = Duplicates(survey).find(near, cosines, but=contradicted)
    check()
    return Analysis(survey, repeated, contradicted, find_groups(survey, near, cosines, {*contradicted, *repeated}))

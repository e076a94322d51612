"""What a look at all memories finds: what repeats, what no longer holds, what belongs together."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.jobs.attempt_context import Attempt
from pipelines.memory.meditation import contradictions
from pipelines.memory.meditation.clustering import MOST_NEIGHBOURS, RELATED, groups
from pipelines.memory.meditation.duplicates import Duplicates
from pipelines.memory.meditation.neighbours import pairs
from pipelines.memory.meditation.snapshot import Survey, look


@dataclass(frozen=True, slots=True)
class Thoughts:
    """Of a survey: places that repeat others or that others contradict, each → the other one, and groups of places."""

    survey: Survey
    repeated: dict[int, int]
    contradicted: dict[int, int]
    groups: Sequence[Sequence[int]]


def think(attempt: Attempt, space_id: int) -> Thoughts:
    """Look at all memories of a space. Raises the reason to stop."""
    survey = look(attempt, space_id)
    attempt.progress(1, 4, note="memories read")
    return find(survey, attempt)


def find(survey: Survey, attempt: Attempt | None = None) -> Thoughts:
    """What there is to find in a survey."""
    check = attempt.check if attempt else lambda: None
    near, cosines = pairs(survey.vectors, least=RELATED, most=MOST_NEIGHBOURS, check=check)
    contradicted = contradictions.find(survey)
    repeated = Duplicates(survey).find(near, cosines, but=contradicted)
    check()
    return Thoughts(survey, repeated, contradicted, groups(survey, near, cosines, {*contradicted, *repeated}))

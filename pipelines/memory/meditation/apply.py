"""A meditation is applied: all of its changes, their record and its outcome, in one transaction, or none of it.

Under the lock of the space every change is looked at once more: what somebody has changed since the survey is left
alone. Recall is measured before and after inside that transaction; where it has become worse, nothing of it is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from models.memory import meditation_changes, meditations
from models.memory.meditation_changes import LiveMemory
from models.memory.meditations import Meditation, MeditationOutcome
from models.memory.spaces import Space
from models.platform.database import Connection, Database
from pipelines.memory import store
from pipelines.memory.meditation import importance
from pipelines.memory.meditation.analysis import Analysis
from pipelines.memory.meditation.insights import Insight
from pipelines.memory.meditation.probes import RecallEvaluator
from pipelines.memory.meditation.snapshot import Snapshot

Recall = tuple[float | None, float | None]


class RecallWouldDrop(Exception):
    """Recall would be worse afterwards: the transaction is taken back."""

    def __init__(self, report: Mapping[str, Any]) -> None:
        super().__init__("recall would be worse")
        self.report = report


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be changed, by memories' ids.

    closed    id → what takes its place, and why
    weights   id → its importance from now on
    insights  to write, each with its vector
    """

    survey: Snapshot
    closed: Mapping[str, tuple[str, str]]
    weights: Mapping[str, float]
    insights: Sequence[tuple[Insight, Sequence[float]]] = ()


def make_plan(thoughts: Analysis, now: datetime, insights: Sequence[tuple[Insight, Sequence[float]]] = ()) -> Plan:
    """What follows from thoughts and insights."""
    survey, closed = thoughts.snapshot, dict[str, tuple[str, str]]()
    for reason, found in (("repeats", thoughts.duplicates), ("contradicted", thoughts.contradictions)):
        for place, other in found.items():
            closed[survey.memories[place].id] = (survey.memories[other].id, reason)
    for insight, _ in insights:
        closed |= dict.fromkeys(insight.replaces, (insight.memory.id, "replaced"))
    weights = {survey.memories[place].id: weight for place, weight in importance.importance_changes(survey, now)}
    return Plan(survey, closed, {id_: weight for id_, weight in weights.items() if id_ not in closed}, insights)


@dataclass(slots=True)
class Changes:
    """What of a plan still stands. `left` are those of its changes that do not."""

    closed: dict[str, tuple[str, str]] = field(default_factory=dict)
    weights: list[tuple[LiveMemory, float, str]] = field(default_factory=list)
    insights: list[tuple[Insight, Sequence[float]]] = field(default_factory=list)
    left: int = 0

    @property
    def any(self) -> bool:
        """Whether there is anything to change."""
        return bool(self.closed or self.weights or self.insights)

    def told(self) -> dict[str, int]:
        """For the report."""
        reasons = [reason for _, reason in self.closed.values()]
        return {
            "merged": reasons.count("repeats"),
            "contradicted": reasons.count("contradicted"),
            "replaced": reasons.count("replaced"),
            "written": len(self.insights),
            "weighed": len(self.weights),
            "left_alone": self.left,
        }


def apply_plan(
    database: Database,
    meditation: Meditation,
    space_id: int,
    planned: Plan,
    measure: RecallEvaluator,
    report: Mapping[str, Any],
) -> None:
    """Change what is planned, unless an earlier attempt has, and say how it ended. Raises PermanentFailure."""
    try:
        with database.transaction() as connection:
            held = meditations.lock(connection, meditation.id, meditation.account_id)
            if held is not None and held.outcome is None:
                space = store.lock_space(connection, space_id)
                outcome, told = _changed(connection, meditation, space, planned, measure)
                _conclude(connection, meditation, outcome, {**report, **told})
    except RecallWouldDrop as harm:
        with database.transaction() as connection:
            _conclude(connection, meditation, "would_harm", {**report, **harm.report})


def _conclude(
    connection: Connection, meditation: Meditation, outcome: MeditationOutcome, report: Mapping[str, Any]
) -> None:
    meditations.set_outcome(connection, meditation.id, meditation.account_id, outcome, report)


def _changed(
    connection: Connection, meditation: Meditation, space: Space, planned: Plan, measure: RecallEvaluator
) -> tuple[MeditationOutcome, dict[str, Any]]:
    before = measure.evaluate(connection)
    changes = current_changes(connection, space.id, planned)
    if not changes.any:
        return "nothing_to_do", {**changes.told(), "recall": measure.report(before, before)}
    make_changes(connection, meditation.id, space, changes)
    after = measure.evaluate(connection)
    report = {**changes.told(), "recall": measure.report(before, after)}
    if before is not None and after is not None and after < before:
        raise RecallWouldDrop(report)
    store.enqueue_index_job(connection, space.id)
    return "applied", report


def current_changes(connection: Connection, space_id: int, planned: Plan) -> Changes:
    """What of a plan still stands. For the holder of the lock."""
    cited = [source for insight, _ in planned.insights for source in insight.memory.sources]
    others = [by for by, _ in planned.closed.values()]
    standing = meditation_changes.read_live(connection, space_id, {*planned.closed, *planned.weights, *cited, *others})
    as_seen = {id_ for id_ in standing if _as_seen(planned.survey, standing[id_])}
    changes = Changes()
    changes.insights = [told for told in planned.insights if as_seen.issuperset(told[0].memory.sources)]
    written = {insight.memory.id for insight, _ in changes.insights}
    for id_, (by, reason) in planned.closed.items():
        if id_ in as_seen and (by in as_seen or by in written):
            changes.closed[id_] = (by, reason)
    for id_, weight in planned.weights.items():
        memory = standing.get(id_)
        if memory is not None and id_ in as_seen and _weighs_as_seen(planned.survey, memory):
            changes.weights.append((memory, weight, "faded" if weight < memory.importance else "used"))
    kept = len(changes.closed) + len(changes.weights) + len(changes.insights)
    changes.left = len(planned.closed) + len(planned.weights) + len(planned.insights) - kept
    return changes


def _as_seen(survey: Snapshot, standing: LiveMemory) -> bool:
    place = survey.positions.get(standing.id)
    return place is not None and survey.memories[place].updated_at == standing.updated_at


def _weighs_as_seen(survey: Snapshot, standing: LiveMemory) -> bool:
    """Single precision is told with more digits by one way than by the other."""
    return abs(survey.memories[survey.positions[standing.id]].importance - standing.importance) < 1e-6


def make_changes(connection: Connection, meditation_id: str, space: Space, changes: Changes) -> None:
    """Make the changes and record each. For the holder of the lock."""
    before = meditation_changes.read_live(connection, space.id, changes.closed)
    if changes.closed:
        store.close_memories(connection, space, list(changes.closed))
        meditation_changes.set_replacements(connection, space.id, {id_: by for id_, (by, _) in changes.closed.items()})
        closed = [(before[id_], reason) for id_, (_, reason) in changes.closed.items()]
        meditation_changes.record_closed(connection, space.id, meditation_id, closed, 0)
    first = len(changes.closed)
    if changes.insights:
        store.insert_memories(connection, space, [(insight.memory, vector) for insight, vector in changes.insights])
        created = {insight.memory.id: "insight" for insight, _ in changes.insights}
        meditation_changes.record_created(connection, space.id, meditation_id, created, first)
    if changes.weights:
        first += len(changes.insights)
        meditation_changes.set_importances(connection, space.id, meditation_id, changes.weights, first)

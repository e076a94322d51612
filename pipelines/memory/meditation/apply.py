"""Apply a meditation: all of its changes, their records and its outcome in one transaction, or none.

Each planned change is checked again under the lock of the space: a memory that was changed since the snapshot is left
as it is. Recall is measured before and after inside the transaction, which is rolled back if recall would drop.
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
from pipelines.memory.meditation.analysis import Analysis
from pipelines.memory.meditation.importance import importance_changes
from pipelines.memory.meditation.insights import Insight
from pipelines.memory.meditation.probes import RecallEvaluator
from pipelines.memory.meditation.snapshot import Snapshot


class RecallWouldDrop(Exception):
    """Recall would be worse after the changes: the transaction is rolled back."""

    def __init__(self, report: Mapping[str, Any]) -> None:
        super().__init__("recall would be worse after the changes")
        self.report = report


@dataclass(frozen=True, slots=True)
class Plan:
    """The planned changes, by ids of memories.

    closed       id → the id of the memory that replaces it, and the reason
    importances  id → the new importance
    insights     to insert, each with its vector
    """

    snapshot: Snapshot
    closed: Mapping[str, tuple[str, str]]
    importances: Mapping[str, float]
    insights: Sequence[tuple[Insight, Sequence[float]]] = ()


def make_plan(analysis: Analysis, now: datetime, insights: Sequence[tuple[Insight, Sequence[float]]] = ()) -> Plan:
    """Plan the changes that follow from an analysis and insights."""
    snapshot, closed = analysis.snapshot, dict[str, tuple[str, str]]()
    for reason, found in (("repeats", analysis.duplicates), ("contradicted", analysis.contradictions)):
        for position, replacement in found.items():
            closed[snapshot.memories[position].id] = (snapshot.memories[replacement].id, reason)
    for insight, _ in insights:
        closed |= dict.fromkeys(insight.replaces, (insight.memory.id, "replaced"))
    changed = {snapshot.memories[position].id: value for position, value in importance_changes(snapshot, now)}
    importances = {memory_id: value for memory_id, value in changed.items() if memory_id not in closed}
    return Plan(snapshot, closed, importances, insights)


@dataclass(slots=True)
class Changes:
    """The changes of a plan that are still possible; `skipped` counts the others."""

    closed: dict[str, tuple[str, str]] = field(default_factory=dict)
    importances: list[tuple[LiveMemory, float, str]] = field(default_factory=list)
    insights: list[tuple[Insight, Sequence[float]]] = field(default_factory=list)
    skipped: int = 0

    @property
    def any(self) -> bool:
        """Whether there is anything to change."""
        return bool(self.closed or self.importances or self.insights)

    def report(self) -> dict[str, int]:
        """Count the changes for the meditation's report."""
        reasons = [reason for _, reason in self.closed.values()]
        return {
            "merged": reasons.count("repeats"),
            "contradicted": reasons.count("contradicted"),
            "replaced": reasons.count("replaced"),
            "written": len(self.insights),
            "weighed": len(self.importances),
            "left_alone": self.skipped,
        }


def apply_plan(
    database: Database,
    meditation: Meditation,
    space_id: int,
    plan: Plan,
    evaluator: RecallEvaluator,
    report: Mapping[str, Any],
) -> None:
    """Apply a plan and record the outcome, unless an earlier attempt did. Raises PermanentFailure."""
    try:
        with database.transaction() as connection:
            locked = meditations.lock(connection, meditation.id, meditation.account_id)
            if locked is not None and locked.outcome is None:
                space = store.lock_space(connection, space_id)
                outcome, changes = _apply(connection, meditation, space, plan, evaluator)
                _set_outcome(connection, meditation, outcome, {**report, **changes})
    except RecallWouldDrop as drop:
        with database.transaction() as connection:
            _set_outcome(connection, meditation, "would_harm", {**report, **drop.report})


def _set_outcome(
    connection: Connection, meditation: Meditation, outcome: MeditationOutcome, report: Mapping[str, Any]
) -> None:
    meditations.set_outcome(connection, meditation.id, meditation.account_id, outcome, report)


def _apply(
    connection: Connection, meditation: Meditation, space: Space, plan: Plan, evaluator: RecallEvaluator
) -> tuple[MeditationOutcome, dict[str, Any]]:
    before = evaluator.evaluate(connection)
    changes = current_changes(connection, space.id, plan)
    if not changes.any:
        return "nothing_to_do", {**changes.report(), "recall": evaluator.report(before, before)}
    make_changes(connection, meditation.id, space, changes)
    after = evaluator.evaluate(connection)
    report = {**changes.report(), "recall": evaluator.report(before, after)}
    if before is not None and after is not None and after < before:
        raise RecallWouldDrop(report)
    return "applied", report


def current_changes(connection: Connection, space_id: int, plan: Plan) -> Changes:
    """Return the changes whose memories are as in the snapshot. The caller holds the lock of the space."""
    cited = [source for insight, _ in plan.insights for source in insight.memory.sources]
    replacements = [replacement for replacement, _ in plan.closed.values()]
    ids = {*plan.closed, *plan.importances, *cited, *replacements}
    live = meditation_changes.read_live(connection, space_id, ids)
    unchanged = {memory_id for memory_id, memory in live.items() if _is_unchanged(plan.snapshot, memory)}
    changes = Changes()
    changes.insights = [each for each in plan.insights if unchanged.issuperset(each[0].memory.sources)]
    inserted = {insight.memory.id for insight, _ in changes.insights}
    for memory_id, (replacement, reason) in plan.closed.items():
        if memory_id in unchanged and (replacement in unchanged or replacement in inserted):
            changes.closed[memory_id] = (replacement, reason)
    for memory_id, value in plan.importances.items():
        memory = live.get(memory_id)
        if memory is not None and memory_id in unchanged and _has_same_importance(plan.snapshot, memory):
            changes.importances.append((memory, value, "faded" if value < memory.importance else "used"))
    kept = len(changes.closed) + len(changes.importances) + len(changes.insights)
    changes.skipped = len(plan.closed) + len(plan.importances) + len(plan.insights) - kept
    return changes


def _is_unchanged(snapshot: Snapshot, memory: LiveMemory) -> bool:
    position = snapshot.positions.get(memory.id)
    return position is not None and snapshot.memories[position].updated_at == memory.updated_at


def _has_same_importance(snapshot: Snapshot, memory: LiveMemory) -> bool:
    """Compare with a tolerance: single precision gets more digits in binary results than in text."""
    return abs(snapshot.memories[snapshot.positions[memory.id]].importance - memory.importance) < 1e-6


def make_changes(connection: Connection, meditation_id: str, space: Space, changes: Changes) -> None:
    """Make the changes and record each. The caller holds the lock of the space."""
    before = meditation_changes.read_live(connection, space.id, changes.closed)
    if changes.closed:
        replacements = {memory_id: replacement for memory_id, (replacement, _) in changes.closed.items()}
        store.close_memories(connection, space, list(changes.closed))
        meditation_changes.set_replacements(connection, space.id, replacements)
        closed = [(before[memory_id], reason) for memory_id, (_, reason) in changes.closed.items()]
        meditation_changes.record_closed(connection, space.id, meditation_id, closed, 0)
    first = len(changes.closed)
    if changes.insights:
        store.insert_memories(connection, space, [(insight.memory, vector) for insight, vector in changes.insights])
        created = {insight.memory.id: "insight" for insight, _ in changes.insights}
        meditation_changes.record_created(connection, space.id, meditation_id, created, first)
    if changes.importances:
        first += len(changes.insights)
        meditation_changes.set_importances(connection, space.id, meditation_id, changes.importances, first)

"""Plan the questions to the language model about groups of memories, and collect the insights of its answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.jobs.jobs import Job, NewJob
from models.memory import scan
from models.memory.meditations import Meditation
from models.memory.memories import NewMemory
from models.platform.database import Connection
from models.platform.ids import IdGenerator
from models.platform.settings import Settings
from pipelines.inference.registry import reflection_enabled
from pipelines.memory.meditation.analysis import Analysis
from pipelines.memory.meditation.snapshot import Snapshot
from pipelines.memory.meditation.suggest_insights import KIND, MAX_ANSWER_TOKENS, MAX_NOTE_LENGTH
from pipelines.memory.model_tokens import estimate_tokens, tokens_left

#: The share of a group's memories that one insight cites from which the group counts as covered.
COVERED_SHARE = 0.7

#: The share of an older insight's sources that a new one must cite to replace it.
REPLACED_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class ModelBudget:
    """The most calls of the language model, and the most tokens of their prompts and answers together."""

    calls: int
    tokens: int


def model_budget(connection: Connection, account_id: str, settings: Settings) -> ModelBudget:
    """Return what a meditation may spend: the configured budget, at most what the account's month has left."""
    if not reflection_enabled(settings):
        return ModelBudget(0, 0)
    left = tokens_left(connection, account_id, settings)
    tokens = settings.reflection_tokens if left is None else min(settings.reflection_tokens, left)
    return ModelBudget(settings.reflection_calls, tokens)


def insight_jobs(analysis: Analysis, meditation: Meditation, budget: ModelBudget) -> list[NewJob]:
    """Build child jobs for the groups with the most uncovered memories, as many as the budget allows."""
    jobs, tokens_left = list[NewJob](), budget.tokens
    for group in _uncovered_groups(analysis):
        texts = (analysis.snapshot.memories[position].text for position in group)
        tokens = estimate_tokens(texts, max_length=MAX_NOTE_LENGTH, answer_tokens=MAX_ANSWER_TOKENS)
        if len(jobs) < budget.calls and tokens <= tokens_left:
            tokens_left -= tokens
            jobs.append(_insight_job(analysis.snapshot, group, meditation, tokens))
    return jobs


def _uncovered_groups(analysis: Analysis) -> list[Sequence[int]]:
    """Return the groups that no insight covers, those with the most uncovered memories first."""
    snapshot = analysis.snapshot
    cited = [frozenset(memory.sources) for memory in snapshot.memories if memory.kind == "insight"]
    ranked = []
    for group in analysis.groups:
        ids = {snapshot.memories[position].id for position in group}
        covered = max((len(ids & sources) for sources in cited), default=0)
        if covered < COVERED_SHARE * len(ids):
            ranked.append((covered - len(ids), group))
    return [group for _, group in sorted(ranked, key=lambda each: (each[0], list(each[1])))]


def _insight_job(snapshot: Snapshot, group: Sequence[int], meditation: Meditation, tokens: int) -> NewJob:
    source_ids = [snapshot.memories[position].id for position in group]
    arguments = {"meditation_id": meditation.id, **meditation.key.arguments, "source_ids": source_ids}
    return NewJob(KIND, meditation.account_id, arguments, reserved_tokens=tokens)


@dataclass(frozen=True, slots=True)
class Insight:
    """An insight to insert, and the ids of the older insights that it replaces."""

    memory: NewMemory
    replaces: Sequence[str]


def collect_insights(children: Sequence[Job], snapshot: Snapshot, meditation: Meditation) -> list[Insight]:
    """Collect the insights of the children's answers, except those with a deleted or changed source."""
    ids, insights = IdGenerator(meditation.id), list[Insight]()
    replaced: set[str] = set()
    for text, sources, digest in _answers(children):
        cited = [snapshot.memories[snapshot.positions[source]] for source in sources if source in snapshot.positions]
        if scan.digest_texts(cited) == digest:
            latest = max(memory.occurred_at for memory in cited)
            memory = NewMemory(ids.new("mem"), text, "", latest, metadata={"meditation_id": meditation.id},
                               kind="insight", sources=sources)  # fmt: skip
            replaces = [older for older in _replaced_by(snapshot, sources) if older not in replaced]
            replaced.update(replaces)
            insights.append(Insight(memory, replaces))
    return insights


def _answers(children: Sequence[Job]) -> Iterator[tuple[str, list[str], str]]:
    """Yield the text, the sources and their digest of each suggested insight."""
    for child in children:
        for insight in (child.result or {}).get("insights", ()):
            yield insight["text"], insight["sources"], insight["digest"]


def _replaced_by(snapshot: Snapshot, sources: Sequence[str]) -> Iterator[str]:
    """Yield the ids of insights that one with these sources replaces."""
    for memory in snapshot.memories:
        common = len({*memory.sources} & {*sources})
        if memory.kind == "insight" and common >= REPLACED_SHARE * max(1, len(memory.sources)):
            yield memory.id


def model_usage(children: Sequence[Job]) -> dict[str, int]:
    """Count the calls of the language model, their tokens, and the failed calls, for the meditation's report."""
    results = [child.result or {} for child in children]
    return {
        "calls": len(results),
        "tokens": sum(result.get("tokens", 0) for result in results),
        "failed": sum(child.state != "completed" for child in children),
    }

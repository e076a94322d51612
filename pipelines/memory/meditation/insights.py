"""Insights: which groups the language model is asked about, within a budget, and what its answers become."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.accounts import admin
from models.jobs.jobs import Job, NewJob
from models.jobs.quota import monthly_usage
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

#: A group of which an insight cites so much already has been thought over.
COVERED = 0.7

#: An older insight with so much of its sources among a new one's is replaced by it.
REPLACED = 0.5

#: Tokens of the instructions and of what stands around each memory, and the least characters of a token.
FRAME, AROUND, CHARACTERS = 200, 16, 3


@dataclass(frozen=True, slots=True)
class Budget:
    """What the language model may be asked: calls, and tokens of questions and answers together."""

    calls: int
    tokens: int


def model_budget(connection: Connection, account_id: str, settings: Settings) -> Budget:
    """What a meditation may spend: the setting's word, and no more than the account's month has left."""
    if not reflection_enabled(settings):
        return Budget(0, 0)
    tokens, account = settings.reflection_tokens, admin.read_account(connection, account_id)
    if account is not None and (limit := account.limits.tokens_per_month) is not None:
        month = monthly_usage(connection, account_id)
        tokens = min(tokens, limit - month.used - month.reserved)
    return Budget(settings.reflection_calls, max(0, tokens))


def insight_jobs(thoughts: Analysis, meditation: Meditation, allowed: Budget) -> list[NewJob]:
    """Child jobs that ask about the groups with the most news, as many as the budget has room for."""
    jobs, left = list[NewJob](), allowed.tokens
    for group in _unthought(thoughts):
        tokens = _cost(thoughts.snapshot, group)
        if len(jobs) < allowed.calls and tokens <= left:
            left -= tokens
            jobs.append(_job(thoughts.snapshot, group, meditation, tokens))
    return jobs


def _unthought(thoughts: Analysis) -> list[Sequence[int]]:
    """Groups that insights do not cover, those with the most news first."""
    survey = thoughts.snapshot
    cited = [frozenset(memory.sources) for memory in survey.memories if memory.kind == "insight"]
    news = []
    for group in thoughts.groups:
        ids = {survey.memories[place].id for place in group}
        known = max((len(ids & sources) for sources in cited), default=0)
        if known < COVERED * len(ids):
            news.append((known - len(ids), group))
    return [group for _, group in sorted(news, key=lambda told: (told[0], list(told[1])))]


def _cost(survey: Snapshot, group: Sequence[int]) -> int:
    told = sum(
        min(len(survey.memories[place].text.encode()), MAX_NOTE_LENGTH) // CHARACTERS + AROUND for place in group
    )
    return FRAME + told + MAX_ANSWER_TOKENS


def _job(survey: Snapshot, group: Sequence[int], meditation: Meditation, tokens: int) -> NewJob:
    source_ids = [survey.memories[place].id for place in group]
    arguments = {"meditation_id": meditation.id, "user_id": meditation.user_id, "source_ids": source_ids}
    return NewJob(KIND, meditation.account_id, arguments, reserved_tokens=tokens)


@dataclass(frozen=True, slots=True)
class Insight:
    """An insight to write, and the ids of older ones that it takes the place of."""

    memory: NewMemory
    replaces: Sequence[str]


def collect_insights(children: Sequence[Job], survey: Snapshot, meditation: Meditation) -> list[Insight]:
    """What the language model's answers become. What has lost a source meanwhile, or its words, is dropped."""
    ids, found = IdGenerator(meditation.id), list[Insight]()
    taken: set[str] = set()
    for text, sources, digest in _answers(children):
        cited = [survey.memories[survey.positions[source]] for source in sources if source in survey.positions]
        if scan.digest_texts(cited) == digest:
            latest = max(memory.occurred_at for memory in cited)
            memory = NewMemory(ids.new("mem"), text, "", latest, metadata={"meditation_id": meditation.id},
                               kind="insight", sources=sources)  # fmt: skip
            older = [insight for insight in _replaced(survey, sources) if insight not in taken]
            taken.update(older)
            found.append(Insight(memory, older))
    return found


def _answers(children: Sequence[Job]) -> Iterator[tuple[str, list[str], str]]:
    for child in children:
        for insight in (child.result or {}).get("insights", ()):
            yield insight["text"], insight["sources"], insight["digest"]


def _replaced(survey: Snapshot, sources: Sequence[str]) -> Iterator[str]:
    for memory in survey.memories:
        if memory.kind == "insight" and len({*memory.sources} & {*sources}) >= REPLACED * max(1, len(memory.sources)):
            yield memory.id


def model_usage(children: Sequence[Job]) -> dict[str, int]:
    """Calls of the language model, the tokens that they took, and how many came to nothing."""
    results = [child.result or {} for child in children]
    return {
        "calls": len(results),
        "tokens": sum(result.get("tokens", 0) for result in results),
        "failed": sum(child.state != "completed" for child in children),
    }

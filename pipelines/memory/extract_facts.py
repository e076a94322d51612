"""`memory.extract`: facts are looked for in what a user's conversations have brought since the last time.

    the next window of what was said → a child asks the language model → its facts are written → the next window …

It follows the remembering of turns, some minutes later, so that a conversation is read at once, and not turn by turn.
Each window is read once: in one transaction its facts are written and it is noted as read. A fact that replaces another
closes it, and deletes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from models.jobs import attempts, jobs
from models.jobs.attempt_context import Attempt, Outcome, WaitForChildren, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import Job, NewJob
from models.memory import facts, scan, spaces
from models.memory import sources as memory_sources
from models.memory.facts import Fact
from models.memory.memories import NewMemory
from models.memory.spaces import Space
from models.platform.database import Connection
from models.platform.ids import new_id
from models.platform.settings import Settings
from pipelines.inference.registry import reflection_enabled
from pipelines.memory.meditation.contradictions import Statement, statements
from pipelines.memory.store import Embed, close_memories, insert_memories, lock_space


def run(embed: Embed, settings: Settings, attempt: Attempt) -> Outcome:
    """Write what the last child has found, then send the next one, as long as there is something to read.

    Raises the reason to stop and EngineError.
    """
    job = attempt.job
    with attempt.database.connection() as connection:
        children = jobs.children(connection, job.id)
        space = spaces.find(connection, job.account_id, job.arguments["user_id"])
    if space is None:
        return _ending(attempt, children)
    if children:
        _take(embed, attempt, space, children[-1])
    attempt.check()
    if (
        reflection_enabled(settings)
        and len(children) < settings.reflection_calls
        and (child := _next(attempt, space.id))
    ):
        return WaitForChildren([child])
    return _ending(attempt, children)


def _ending(attempt: Attempt, children: Sequence[Job]) -> Ending:
    found = sum((child.result or {}).get("found", 0) for child in children)
    return plain_ending(attempt, "completed", result={"asked": len(children), "found": found})


def _next(attempt: Attempt, space_id: int) -> NewJob | None:
    """The child that reads on."""
    job = attempt.job
    with attempt.database.connection() as connection:
        space = spaces.read(connection, space_id)
        ids, behind = facts.next_window(connection, space_id, space.extracted) if space else ([], 0)
    arguments = {"user_id": job.arguments["user_id"], "source_ids": ids, "behind": behind}
    return NewJob(facts.FACT_KIND, job.account_id, arguments) if ids else None


def _take(embed: Embed, attempt: Attempt, space: Space, child: Job) -> None:
    """Write a child's facts, once. What one that failed was to read is not read again."""
    found: Sequence[Mapping[str, Any]] = (child.result or {}).get("facts", [])
    vectors = embed([fact["text"] for fact in found])
    with attempt.database.transaction() as connection:
        attempts.lock_job(connection, attempt.job)
        space = lock_space(connection, space.id)
        if space.extracted < child.arguments["behind"]:
            _write(connection, space, list(zip(found, vectors, strict=True)))
            facts.mark_read(connection, space.id, child.arguments["behind"])
        facts.clear_answers(connection, [child.id])


@dataclass(frozen=True, slots=True)
class KnownFact:
    """A fact with what it claims."""

    id: str
    text: str
    since: datetime
    claims: Sequence[Statement]


def _write(connection: Connection, space: Space, found: Sequence[tuple[Mapping[str, Any], Sequence[float]]]) -> None:
    known = [_holding(fact) for fact in facts.list_live(connection, space.account_id, space.user_id)]
    for fact, vector in found:
        new = _memory(connection, space, fact)
        held = _holding(Fact(new.id, new.text, dict(new.metadata), new.occurred_at)) if new else None
        if new is None or held is None:
            continue
        if (same := next((other for other in known if _same(held, other)), None)) is not None:
            memory_sources.cite(connection, space.id, [replace(new, id=same.id)])
            continue
        space = lock_space(connection, space.id)  # its ordinals have gone on
        insert_memories(connection, space, [(new, vector)])
        for other in known:
            if _contradicts(held, other):
                older, newer = sorted((other, held), key=lambda one: one.since)
                close_memories(connection, space, [older.id], newer.id)
        known.append(held)


def _memory(connection: Connection, space: Space, fact: Mapping[str, Any]) -> NewMemory | None:
    """The fact as a memory; None where what it follows from has gone meanwhile, or has been given other words."""
    sources = scan.read_texts(connection, fact["sources"], space.account_id, space.user_id)
    if scan.digest_texts(sources) != fact["digest"]:
        return None
    since = max(source.occurred_at for source in sources)
    return NewMemory(
        new_id("mem"),
        fact["text"],
        "",
        since,
        metadata={name: fact[name] for name in ("subject", "attribute", "value")},
        kind="fact",
        valid_from=since,
        sources=fact["sources"],
    )


def _holding(fact: Fact) -> KnownFact:
    return KnownFact(fact.id, fact.text, fact.since, list(statements(fact)))


def _same(one: KnownFact, other: KnownFact) -> bool:
    """Whether they say the same, in the same words or of the same thing."""
    return one.text.casefold() == other.text.casefold() or any(claim in other.claims for claim in one.claims)


def _contradicts(one: KnownFact, other: KnownFact) -> bool:
    """Whether they say another thing of what can only be one."""
    pairs = ((claim, standing) for claim in one.claims for standing in other.claims if claim.topic == standing.topic)
    return one.since != other.since and any(
        not (claim.value <= standing.value or standing.value <= claim.value) for claim, standing in pairs
    )

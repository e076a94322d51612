"""`memory.extract`: extract facts from the part of a user's conversations that was not read yet.

    next window of memories → child job `memory.fact` asks the language model → its facts are written → next window …

The job runs some minutes after `memory.remember`, so that a conversation is read in one go and not turn by turn. Each
window is read once: its facts are written and it is marked as read in one transaction. A fact that contradicts an
older one closes it, and deletes nothing. When the tokens that the account has left this month do not suffice, the job
ends; a later one continues with the windows that are left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from models.jobs import attempts, jobs
from models.jobs.attempt_context import Attempt, Outcome, WaitForChildren, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import Job, NewJob
from models.memory import facts, scan, spaces
from models.memory import sources as memory_sources
from models.memory.facts import Fact
from models.memory.memories import NewMemory
from models.memory.spaces import Space, SpaceKey
from models.platform.database import Connection
from models.platform.ids import new_id
from models.platform.settings import Settings
from pipelines.inference.registry import reflection_enabled
from pipelines.memory.meditation.contradictions import Statement, statements
from pipelines.memory.model_tokens import estimate_tokens, reserve_money, tokens_left
from pipelines.memory.store import Embed, close_memories, insert_memories, lock_space
from pipelines.memory.suggest_facts import MAX_ANSWER_TOKENS, MAX_LINE_LENGTH


def run(embed: Embed, settings: Settings, attempt: Attempt) -> Outcome:
    """Write the facts of the last child, then enqueue a child for the next window, until all is read.

    Raises the reason to stop, PermanentFailure and EngineError.
    """
    job = attempt.job
    with attempt.database.connection() as connection:
        children = jobs.children(connection, job.id)
        space = spaces.find(connection, SpaceKey.of_job(job))
    if space is None:
        return _ending(attempt, children)
    if children:
        _write_child_facts(embed, attempt, space, children[-1])
    attempt.check()
    may_ask = reflection_enabled(settings) and len(children) < settings.reflection_calls
    child = _next_child(attempt, space.id, settings) if may_ask else None
    if child is None:
        return _ending(attempt, children)
    return WaitForChildren([child], within_month=True, reserve=partial(reserve_money, jobs=[child], settings=settings))


def _ending(attempt: Attempt, children: Sequence[Job]) -> Ending:
    found = sum((child.result or {}).get("found", 0) for child in children)
    return plain_ending(attempt, "completed", result={"asked": len(children), "found": found})


def _next_child(attempt: Attempt, space_id: int, settings: Settings) -> NewJob | None:
    """Build the child job that reads the next window; None if all is read, or the month's tokens are used up."""
    key = SpaceKey.of_job(attempt.job)
    with attempt.database.connection() as connection:
        space = spaces.read(connection, space_id)
        ids, behind = facts.next_window(connection, space_id, space.extracted) if space else ([], 0)
        texts = [memory.text for memory in scan.read_texts(connection, ids, key)]
        left = tokens_left(connection, key.account_id, settings)
    tokens = estimate_tokens(texts, max_length=MAX_LINE_LENGTH, answer_tokens=MAX_ANSWER_TOKENS)
    if not ids or (left is not None and tokens > left):
        return None
    arguments = {**key.arguments, "source_ids": ids, "behind": behind}
    return NewJob(facts.FACT_KIND, key.account_id, arguments, reserved_tokens=tokens)


def _write_child_facts(embed: Embed, attempt: Attempt, space: Space, child: Job) -> None:
    """Write a child's facts and mark its window as read, once. The window of a failed child is not read again."""
    suggested: Sequence[Mapping[str, Any]] = (child.result or {}).get("facts", [])
    vectors = embed([fact["text"] for fact in suggested])
    with attempt.database.transaction() as connection:
        attempts.lock_job(connection, attempt.job)
        space = lock_space(connection, space.id)
        if space.extracted < child.arguments["behind"]:
            _write_facts(connection, space, list(zip(suggested, vectors, strict=True)))
            facts.mark_read(connection, space.id, child.arguments["behind"])
        facts.clear_answers(connection, [child.id])


@dataclass(frozen=True, slots=True)
class KnownFact:
    """A fact with the statements it makes."""

    id: str
    text: str
    since: datetime
    statements: Sequence[Statement]


def _write_facts(
    connection: Connection, space: Space, suggested: Sequence[tuple[Mapping[str, Any], Sequence[float]]]
) -> None:
    """Insert new facts, add sources to repeated ones, and close those that newer ones contradict."""
    known = [_to_known(fact) for fact in facts.list_live(connection, space.id)]
    for suggestion, vector in suggested:
        new = _new_memory(connection, space, suggestion)
        if new is None:
            continue
        fact = _to_known(Fact(new.id, new.text, dict(new.metadata), new.occurred_at))
        if (same := next((other for other in known if _same(fact, other)), None)) is not None:
            memory_sources.cite(connection, space.id, [replace(new, id=same.id)])
            continue
        space = lock_space(connection, space.id)  # read again: its next ordinal has changed
        insert_memories(connection, space, [(new, vector)])
        for other in known:
            if _contradict(fact, other):
                older, newer = sorted((other, fact), key=lambda each: each.since)
                close_memories(connection, space, [older.id], newer.id)
        known.append(fact)


def _new_memory(connection: Connection, space: Space, suggestion: Mapping[str, Any]) -> NewMemory | None:
    """Build the memory of a suggested fact; None if a source was deleted or changed since the model read it."""
    sources = scan.read_texts(connection, suggestion["sources"], space.key)
    if scan.digest_texts(sources) != suggestion["digest"]:
        return None
    since = max(source.occurred_at for source in sources)
    return NewMemory(
        new_id("mem"),
        suggestion["text"],
        "",
        since,
        metadata={name: suggestion[name] for name in ("subject", "attribute", "value")},
        kind="fact",
        valid_from=since,
        sources=suggestion["sources"],
    )


def _to_known(fact: Fact) -> KnownFact:
    return KnownFact(fact.id, fact.text, fact.since, list(statements(fact)))


def _same(one: KnownFact, other: KnownFact) -> bool:
    """Return whether two facts have the same text or share a statement."""
    return one.text.casefold() == other.text.casefold() or any(each in other.statements for each in one.statements)


def _contradict(one: KnownFact, other: KnownFact) -> bool:
    """Return whether two facts of different times state different values of the same topic."""
    pairs = ((left, right) for left in one.statements for right in other.statements if left.topic == right.topic)
    return one.since != other.since and any(left.contradicts(right) for left, right in pairs)

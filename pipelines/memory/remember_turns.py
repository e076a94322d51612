"""Remembering turns: what a person has said in them, and what was answered, word by word.

A burst of turns makes few jobs: each remembers all of a user's turns that have ended. What a person said is remembered
whatever became of the answer; an answer only where it was given to its end, or to its longest.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from models.jobs import attempts
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import wait_for_batch_writers
from models.memory import memories, pending_turns, sources
from models.memory.memories import NewMemory
from models.platform.ids import new_id
from models.platform.settings import Settings
from models.turns.responses import Response
from pipelines.inference.registry import reflection_enabled
from pipelines.memory.follow_ups import extract_facts_job
from pipelines.memory.memory_input import MAX_TEXT_LENGTH
from pipelines.memory.store import Embed, enqueue_index_job, insert_memories, lock_space, open_space, select_missing

#: How long a conversation may go on before facts are looked for in it.
EXTRACTION_DELAY = timedelta(minutes=10)

#: Turns of one transaction: a second or two of embedding on a slow core, while nobody else wants it.
BATCH = 48


def run(embed: Embed, settings: Settings, attempt: Attempt) -> Ending:
    """Remember a user's turns, and have facts looked for in them later. Raises the reason to stop and EngineError."""
    job, done = attempt.job, 0
    with attempt.database.connection() as connection:
        wait_for_batch_writers(connection, job)
    while turns := _next(attempt):
        if done:
            attempt.report_progress(done, note="turns remembered")
        _remember(embed, attempt, turns)
        done += len(turns)
        if len(turns) < BATCH:
            break  # what has ended meanwhile has a job of its own
    ending = plain_ending(attempt, "completed", result={"turns": done})
    if not done or not reflection_enabled(settings):
        return ending
    later = extract_facts_job(job.account_id, job.arguments["user_id"], datetime.now(UTC) + EXTRACTION_DELAY)
    return replace(ending, follow_ups=[later])


def _next(attempt: Attempt) -> list[Response]:
    with attempt.database.connection() as connection:
        return pending_turns.list_ended(connection, attempt.job.account_id, attempt.job.arguments["user_id"], BATCH)


def _remember(embed: Embed, attempt: Attempt, turns: Sequence[Response]) -> None:
    """Write the memories of turns and take their marks off, all at once."""
    account_id, user_id = attempt.job.account_id, attempt.job.arguments["user_id"]
    news = [new for turn in turns for new in memories_of_turn(turn)]
    with attempt.database.connection() as connection:
        space = open_space(connection, account_id, user_id)
        missing = select_missing(news, memories.existing_ids(connection, space.id, news))
    vectors = dict(zip((new.id for new in missing), _vectors(embed, missing), strict=True))
    attempt.check()
    with attempt.database.transaction() as connection:
        attempts.lock_job(connection, attempt.job)
        space = lock_space(connection, space.id)
        standing = pending_turns.mark_remembered(connection, account_id, [turn.id for turn in turns])
        added = [new for new in missing if new.response_id in standing]
        # What was recalled for an answer may have been forgotten since: then the answer is not remembered.
        forgotten = sources.missing_ids(connection, space.id, [each for new in added for each in new.sources])
        kept = [new for new in added if forgotten.isdisjoint(new.sources)]
        insert_memories(connection, space, [(new, vectors[new.id]) for new in kept])
        enqueue_index_job(connection, space.id)


def _vectors(embed: Embed, news: Sequence[NewMemory]) -> list[list[float]]:
    """A vector each; equal texts share the work."""
    texts = list(dict.fromkeys(new.text for new in news))
    made = dict(zip(texts, embed(texts), strict=True))
    return [made[new.text] for new in news]


def memories_of_turn(response: Response) -> Iterator[NewMemory]:
    """What was said in a turn, in that order, all of it at one time: a turn that had to wait was said no earlier."""
    answered = response.output if response.status in ("completed", "incomplete") else []
    for item in (*_asked(response.input), *answered):
        if item["type"] != "message":
            continue
        for number, piece in enumerate(_pieces("".join(part["text"] for part in item["content"]))):
            yield NewMemory(
                new_id("mem"),
                piece,
                item["role"],
                response.created_at,
                conversation_id=response.thread,
                response_id=response.id,
                unique_key=f"{item['id']}.{number}" if number else item["id"],
                sources=_given(response) if item["role"] == "assistant" else (),
            )


def _given(response: Response) -> tuple[str, ...]:
    """The memories that an answer may repeat: it goes when one of them is forgotten."""
    return tuple(known["id"] for known in response.recalled)


def _asked(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What the user says in this turn. A client that keeps no state here sends all that was said before again: that
    ends with what is no user's message."""
    others = [place for place, item in enumerate(items) if item.get("role") in (None, "assistant")]
    return [item for item in items[max(others, default=-1) + 1 :] if item["role"] == "user"]


def _pieces(text: str) -> Iterator[str]:
    """A text, whole unless it is longer than a memory may be; white space alone says nothing."""
    while text.strip():
        cut = len(text) if len(text) <= MAX_TEXT_LENGTH else text.rfind(" ", MAX_TEXT_LENGTH // 2, MAX_TEXT_LENGTH) + 1
        piece, text = text[: cut or MAX_TEXT_LENGTH], text[cut or MAX_TEXT_LENGTH :]
        if piece.strip():
            yield piece

"""`memory.remember`: write the messages of ended turns as memories, verbatim.

Many turns share one job, which remembers all of a user's ended turns. The user's messages are remembered whatever the
status of the response; the answer only if the response is `completed` or `incomplete`.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from models.jobs import attempts
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.coalesced import wait_for_batch_writers
from models.memory import memories, pending_turns, sources, spaces
from models.memory.memories import NewMemory
from models.memory.spaces import SpaceKey
from models.platform.database import Connection
from models.platform.errors import Released
from models.platform.ids import new_id
from models.platform.settings import Settings
from models.turns.responses import Response
from pipelines.chat.call_items import parts_text
from pipelines.inference.registry import reflection_enabled
from pipelines.memory.follow_ups import extract_facts_job
from pipelines.memory.index_entries import IndexEntries
from pipelines.memory.memory_input import MAX_TEXT_LENGTH
from pipelines.memory.store import Embed, insert_memories, open_within_limit, select_missing, stoppable
from pipelines.time_slice import TimeSlice

log = logging.getLogger(__name__)

#: The time between a turn and the extraction of facts, so that a conversation is read in one go.
EXTRACTION_DELAY = timedelta(minutes=10)

#: Turns of one transaction. Embedding them takes 1 to 2 s on an otherwise idle slow core.
BATCH = 48

#: Seconds after which the job runs again if a space was deleted meanwhile; it then creates a new one.
REOPEN_DELAY = 1.0


def run(embed: Embed, settings: Settings, attempt: Attempt) -> Ending:
    """Remember a user's ended turns, and schedule the extraction of facts.

    Raises the reason to stop, PermanentFailure and EngineError.
    """
    job, done, time_slice = attempt.job, (attempt.job.progress or {}).get("done", 0), TimeSlice(attempt)
    remembered = set[SpaceKey]()
    with attempt.database.connection() as connection:
        wait_for_batch_writers(connection, job.serial_key)
    while turns := _next_turns(attempt):
        if done:
            attempt.report_progress(done, note="turns remembered")
            time_slice.check()
        for key, turns_of_space in _by_space(turns).items():
            _remember(stoppable(embed, attempt), attempt, key, turns_of_space)
            remembered.add(key)
        done += len(turns)
        if len(turns) < BATCH:
            break  # turns that ended meanwhile have a job of their own
    ending = plain_ending(attempt, "completed", result={"turns": done})
    if not done or not reflection_enabled(settings):
        return ending
    run_at = datetime.now(UTC) + EXTRACTION_DELAY
    return replace(ending, follow_ups=[extract_facts_job(key, run_at) for key in sorted(remembered)])


def _next_turns(attempt: Attempt) -> list[Response]:
    with attempt.database.connection() as connection:
        return pending_turns.list_ended(connection, attempt.job.account_id, attempt.job.arguments["user_id"], BATCH)


def _by_space(turns: Sequence[Response]) -> dict[SpaceKey, list[Response]]:
    """Group turns of a user by their space, in their order."""
    groups: dict[SpaceKey, list[Response]] = {}
    for turn in turns:
        if (key := SpaceKey.of_turn(turn)) is not None:
            groups.setdefault(key, []).append(turn)
    return groups


def _remember(embed: Embed, attempt: Attempt, key: SpaceKey, turns: Sequence[Response]) -> None:
    """Write the memories of turns into their space and mark the turns as remembered, in one transaction.

    If the account has reached its limit of spaces, the turns are only marked.
    """
    new_memories = [new for turn in turns for new in memories_of_turn(turn)]
    with attempt.database.connection() as connection:
        if (space := open_within_limit(connection, key)) is None:
            return _skip(connection, key, turns)
        missing = select_missing(new_memories, memories.existing_ids(connection, space.id, new_memories))
    vectors = dict(zip((new.id for new in missing), _embed_distinct(embed, missing), strict=True))
    entries = IndexEntries(space.term_version, (new.text for new in missing))
    attempt.check()
    with attempt.database.transaction() as connection:
        attempts.lock_job(connection, attempt.job)
        if (space := spaces.lock(connection, space.id)) is None:
            raise Released("the space of these turns was deleted", delay=REOPEN_DELAY)
        marked = pending_turns.mark_remembered(connection, key.account_id, [turn.id for turn in turns])
        added = [new for new in missing if new.response_id in marked]
        # A memory that was recalled for an answer may have been deleted since; such an answer is not remembered.
        deleted = sources.missing_ids(connection, space.id, [source for new in added for source in new.sources])
        kept = [new for new in added if deleted.isdisjoint(new.sources)]
        insert_memories(connection, space, [(new, vectors[new.id]) for new in kept], entries)


def _skip(connection: Connection, key: SpaceKey, turns: Sequence[Response]) -> None:
    """Mark turns as remembered without memories, because their account has reached its limit of spaces."""
    pending_turns.mark_remembered(connection, key.account_id, [turn.id for turn in turns])
    log.warning("Account %s has reached its limit of memory spaces: skipped %d turns", key.account_id, len(turns))


def _embed_distinct(embed: Embed, new_memories: Sequence[NewMemory]) -> list[list[float]]:
    """Embed each memory's text, equal texts once."""
    texts = list(dict.fromkeys(new.text for new in new_memories))
    vectors = dict(zip(texts, embed(texts), strict=True))
    return [vectors[new.text] for new in new_memories]


def memories_of_turn(response: Response) -> Iterator[NewMemory]:
    """Build the memories of a turn, in order. All have the creation time of the response.

    An answer cites the memories that were recalled for it, because it may repeat them: it is deleted with any of them.
    """
    answer = response.output if response.status in ("completed", "incomplete") else []
    recalled = tuple(memory["id"] for memory in response.recalled)
    for item in (*_new_messages(response.input), *answer):
        if item["type"] != "message":
            continue
        for number, piece in enumerate(_split(parts_text(item["content"]))):
            yield NewMemory(
                new_id("mem"),
                piece,
                item["role"],
                response.created_at,
                conversation_id=response.thread,
                response_id=response.id,
                unique_key=f"{item['id']}.{number}" if number else item["id"],
                sources=recalled if item["role"] == "assistant" else (),
            )


def _new_messages(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Select the user's messages that are new in this turn: those behind the last item that is not from the user.

    A client that keeps its conversations itself sends all earlier items again.
    """
    others = [index for index, item in enumerate(items) if item.get("role") in (None, "assistant")]
    return [item for item in items[max(others, default=-1) + 1 :] if item["role"] == "user"]


def _split(text: str) -> Iterator[str]:
    """Split a text into pieces of at most MAX_TEXT_LENGTH characters, at spaces if possible, without blank ones."""
    while text.strip():
        cut = len(text) if len(text) <= MAX_TEXT_LENGTH else text.rfind(" ", MAX_TEXT_LENGTH // 2, MAX_TEXT_LENGTH) + 1
        piece, text = text[: cut or MAX_TEXT_LENGTH], text[cut or MAX_TEXT_LENGTH :]
        if piece.strip():
            yield piece

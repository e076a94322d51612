"""`memory.forget`: delete memories with their index entries, in one transaction per batch.

A memory that was derived from deleted ones alone is closed and its text erased, because the text repeats theirs. One
that has other sources too stays, without the citation.
"""

import time
from collections.abc import Sequence

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.memory import (
    index_state,
    meditation_changes,
    meditations,
    memories,
    pending_turns,
    sources,
    spaces,
    vector_codes,
)
from models.memory import vectors as memory_vectors
from models.memory.memories import Memory
from models.memory.spaces import Space, SpaceKey
from models.platform.database import Connection, Database
from pipelines.memory.store import close_memories, remove_from_indexes
from pipelines.time_slice import TimeSlice

#: Memories deleted in one transaction, at first and at most. One with thousands of different words takes half a second.
FIRST_BATCH, BATCH = 8, 200

#: Seconds for which a transaction may hold the lock of the space: the next batch is half as large after a longer one,
#: and twice as large after one of less than a quarter.
LOCK_TIME = 1.0


def run(attempt: Attempt) -> Ending:
    """Delete the memories of a conversation, or all of a space; with all memories of an end user also their space.

    What was created after the request is kept. The next attempt continues after the last batch.

    Raises the reason to stop, and Released after a time slice.
    """
    key, time_slice = SpaceKey.of_job(attempt.job), TimeSlice(attempt)
    deleted: int = (attempt.job.progress or {}).get("done", 0)
    conversation_id: str | None = attempt.job.arguments["conversation_id"]
    with attempt.database.connection() as connection:
        space = spaces.find(connection, key)
    if conversation_id is None and key.end_user:
        _erase_space_data(attempt, key)
    size, started = FIRST_BATCH, time.monotonic()
    while space is not None and (count := _delete_batch(attempt, space.id, conversation_id, size)):
        size, started = _next_size(size, time.monotonic() - started), time.monotonic()
        deleted += count
        attempt.report_progress(deleted, note="memories deleted")
        time_slice.check()
    if space is not None and conversation_id is None:
        _delete_space(attempt, space.id)
    return plain_ending(attempt, "completed", result={"deleted": deleted})


def _erase_space_data(attempt: Attempt, key: SpaceKey) -> None:
    """Delete the meditations of an end user's space, and exclude its turns from being remembered.

    What was created after the request is kept, also by a repeated attempt. The memories of a turn that is being
    remembered now are written before, and are deleted with the others.
    """
    with attempt.database.transaction() as connection:
        pending_turns.drop(connection, key, until=attempt.job.created_at)
        meditations.delete_of_space(connection, key, until=attempt.job.created_at)


def _delete_space(attempt: Attempt, space_id: int) -> None:
    """Delete the space of an end user, unless new turns have been remembered in it."""
    with attempt.database.transaction() as connection:
        if spaces.lock(connection, space_id) is not None:
            spaces.delete_if_empty(connection, space_id)


def _next_size(size: int, seconds: float) -> int:
    """Return the number of memories to delete next, given the seconds that `size` of them took."""
    if seconds > LOCK_TIME:
        return max(1, size // 2)
    return min(BATCH, size * 2) if seconds < LOCK_TIME / 4 else size


def _delete_batch(attempt: Attempt, space_id: int, conversation_id: str | None, size: int) -> int:
    attempt.check()
    with attempt.database.transaction() as connection:
        space = spaces.lock(connection, space_id)
        ids = memories.ids_until(connection, space_id, conversation_id, attempt.job.id, size)
        if space is not None and ids:
            delete_memories(connection, space, ids)
    return len(ids)


def delete_memory(database: Database, memory: Memory) -> None:
    """Delete one memory."""
    with database.transaction() as connection:
        space = spaces.lock(connection, memory.space_id)
        if space is not None:
            delete_memories(connection, space, [memory.id])


def delete_memories(connection: Connection, space: Space, ids: Sequence[str]) -> None:
    """Delete memories with their index entries. The caller holds the lock of the space.

    Duplicates of them that a meditation closed are deleted too: the user sees only one of the set.
    """
    ids = [*ids, *meditation_changes.duplicates_of(connection, space.id, ids)]
    erase_derived(connection, space, ids)
    ordinals = remove_from_indexes(connection, space, ids)
    memories.delete(connection, space.id, ids)  # with their vectors
    vector_codes.refresh(connection, space.id, ordinals)


def erase_derived(connection: Connection, space: Space, ids: Sequence[str]) -> None:
    """Close the memories that were derived from these alone, and erase their texts and vectors.

    The caller holds the lock of the space.
    """
    derived = sources.derived_from(connection, space.id, ids)
    if not derived:
        return
    close_memories(connection, space, derived)
    ordinals = [memory.ordinal for memory in index_state.read(connection, space.id, derived)]
    memory_vectors.delete(connection, space.id, ordinals)
    index_state.erase_text(connection, space.id, derived)

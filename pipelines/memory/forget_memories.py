"""Memories are forgotten, or changed: what stood of them in the indexes goes in the same transaction.

What was derived from a memory alone is closed with it and loses its words, for they were the memory's. What has other
sources too stays, and cites it no more.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.memory import index_state, meditation_changes, memories, postings, sources, spaces, vector_indexes
from models.memory import vectors as memory_vectors
from models.memory.memories import Memory, MemoryUpdate
from models.memory.spaces import Space
from models.platform.database import Connection, Database
from pipelines.memory import terms
from pipelines.memory.endings import TimeSlice, complete_without_arguments
from pipelines.memory.store import Embed, close_memories, enqueue_index_job, lock_space, remove_from_indexes

#: Memories that one transaction deletes.
BATCH = 200


def delete_memories(connection: Connection, space: Space, ids: Sequence[str]) -> None:
    """Delete memories and what of them stands elsewhere. For the holder of the lock.

    With them goes what a meditation has closed because it said the same: whoever forgets sees only one of them.
    """
    ids = [*ids, *meditation_changes.duplicates_of(connection, space.id, ids)]
    _close_derived(connection, space, ids)
    remove_from_indexes(connection, space, ids)
    memories.delete(connection, space.id, ids)


def _close_derived(connection: Connection, space: Space, ids: Sequence[str]) -> None:
    derived = sources.derived_from(connection, space.id, ids)
    if not derived:
        return
    close_memories(connection, space, derived)
    memory_vectors.delete(connection, space.id, [m.ordinal for m in index_state.read(connection, space.id, derived)])
    index_state.erase_text(connection, space.id, derived)


def delete_memory(database: Database, memory: Memory) -> None:
    """Delete a memory."""
    with database.transaction() as connection:
        space = spaces.lock(connection, memory.space_id)
        if space is not None:
            delete_memories(connection, space, [memory.id])
            enqueue_index_job(connection, space.id)


def run(attempt: Attempt) -> Ending:
    """Delete the memories of a conversation, or all of a user's: batch by batch, so that a later attempt goes on."""
    arguments, shift = attempt.job.arguments, TimeSlice(attempt)
    deleted: int = (attempt.job.progress or {}).get("done", 0)
    conversation_id: str | None = arguments["conversation_id"]
    with attempt.database.connection() as connection:
        space = spaces.find(connection, attempt.job.account_id, arguments["user_id"])
    while space is not None and (gone := _forget_batch(attempt, space.id, conversation_id)):
        deleted += gone
        attempt.report_progress(deleted, note="memories deleted")
        shift.check()
    return plain_ending(attempt, "completed", result={"deleted": deleted})


def _forget_batch(attempt: Attempt, space_id: int, conversation_id: str | None) -> int:
    attempt.check()
    with attempt.database.transaction() as connection:
        space = spaces.lock(connection, space_id)
        ids = memories.list_ids(connection, space_id, conversation_id, BATCH)
        if space is not None and ids:
            delete_memories(connection, space, ids)
            enqueue_index_job(connection, space.id)
    return len(ids)


def run_change(embed: Embed, attempt: Attempt) -> Ending:
    """Change a memory's words: it stands under its new terms and vector from here on, and what was derived from the
    old ones alone is closed. Doing it again changes nothing."""
    arguments = attempt.job.arguments
    change = parse_change(arguments["change"])
    vectors = embed([change.text]) if change.text is not None else []
    with attempt.database.transaction() as connection:
        space = spaces.find(connection, attempt.job.account_id, arguments["user_id"])
        found = space and _changed(
            connection, lock_space(connection, space.id), arguments["memory_id"], change, vectors
        )
    return complete_without_arguments(attempt, {"changed": found is not None})


def _changed(
    connection: Connection, space: Space, memory_id: str, change: MemoryUpdate, vectors: Sequence[Sequence[float]]
) -> Memory | None:
    """The memory as it stands once the lock is held: somebody else may have given it other words meanwhile."""
    found = memories.read(connection, memory_id, space.account_id, space.user_id)
    return update_memory(connection, space, found, change, vectors) if found else None


def parse_change(told: Mapping[str, Any]) -> MemoryUpdate:
    """From a job's arguments; times are RFC 3339 there."""
    moment = told.get("occurred_at")
    return MemoryUpdate(**{**told, "occurred_at": datetime.fromisoformat(moment) if moment else None})


def update_memory(
    connection: Connection, space: Space, memory: Memory, change: MemoryUpdate, vectors: Sequence[Sequence[float]] = ()
) -> Memory | None:
    """Change a memory; `vectors` has the new text's, if there is one. For the holder of the lock."""
    if change.text is not None and change.text != memory.text:
        _close_derived(connection, space, [memory.id])
    old = next(iter(index_state.read(connection, space.id, [memory.id])), None)
    changed = memories.update(connection, memory.id, memory.account_id, memory.user_id, change)
    if old is None or changed is None:
        return None
    if vectors:
        memory_vectors.put(connection, space.id, {old.ordinal: vectors[0]})
    if old.closed:
        memory_vectors.set_live(connection, space.id, [old.ordinal], live=False)  # one without words had none
        return changed
    if change.text is not None:
        weights = terms.term_weights(changed.text)
        postings.remove(connection, space.id, {old.ordinal: old.terms})
        postings.add(connection, space.id, {old.ordinal: weights})
        index_state.set_terms(connection, space.id, {old.ordinal: ([*weights], terms.is_question(changed.text))})
    counts = Counter({changed.speaker: 1})
    counts.subtract({old.speaker: 1})
    spaces.add_speaker_counts(connection, space.id, counts)
    return changed


def drop_indexes(database: Database, account_id: str) -> None:
    """Drop the indexes of the spaces of an account that is erased, before its spaces go."""
    with database.connection() as connection:
        for space_id in spaces.ids_of_account(connection, account_id):
            vector_indexes.drop(connection, space_id)

"""`memory.change`: change a memory's text, fields and index entries in one transaction."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from models.jobs.attempt_context import Attempt
from models.jobs.attempts import Ending
from models.memory import index_state, memories, postings, spaces
from models.memory import vectors as memory_vectors
from models.memory.memories import Memory, MemoryUpdate
from models.memory.spaces import Space, SpaceKey
from models.platform.database import Connection, Database
from pipelines.memory.endings import complete_without_arguments
from pipelines.memory.forget_memories import erase_derived
from pipelines.memory.index_entries import NO_ENTRIES, IndexEntries
from pipelines.memory.passages import insert_passages, remove_passages
from pipelines.memory.store import Embed, lock_space


def run(embed: Embed, attempt: Attempt) -> Ending:
    """Change a memory, index it under its new terms and vector, and erase what was derived from its old text alone.

    A repeated attempt changes nothing. Raises PermanentFailure and EngineError.
    """
    arguments = attempt.job.arguments
    with attempt.database.connection() as connection:
        space = spaces.find(connection, SpaceKey.of_job(attempt.job))
    update = parse_update(arguments["change"])
    changed = space and _change(embed, attempt.database, space, arguments["memory_id"], update)
    return complete_without_arguments(attempt, {"changed": changed is not None})


def _change(embed: Embed, database: Database, space: Space, memory_id: str, update: MemoryUpdate) -> Memory | None:
    """Embed and analyse the new text, then change the memory; None if it was deleted."""
    texts = [] if update.text is None else [update.text]
    vectors = embed(texts) if texts else []
    entries = IndexEntries(space.term_version, texts)
    with database.transaction() as connection:
        space = lock_space(connection, space.id)
        # Read under the lock: another request may have changed the text meanwhile.
        memory = memories.read(connection, memory_id, space.key)
        return memory and update_memory(connection, space, memory, update, vectors, entries)


def parse_update(arguments: Mapping[str, Any]) -> MemoryUpdate:
    """Parse a change from a job's arguments, where times are RFC 3339 text."""
    occurred_at = arguments.get("occurred_at")
    return MemoryUpdate(**{**arguments, "occurred_at": datetime.fromisoformat(occurred_at) if occurred_at else None})


def update_memory(
    connection: Connection,
    space: Space,
    memory: Memory,
    update: MemoryUpdate,
    vectors: Sequence[Sequence[float]] = (),
    entries: IndexEntries = NO_ENTRIES,
) -> Memory | None:
    """Update a memory and its index entries; None if it was deleted. The caller holds the lock of the space.

    vectors  the vector of the new text, if the text changes
    entries  the index entry of the new text, found before the lock
    """
    if update.text is not None and update.text != memory.text:
        erase_derived(connection, space, [memory.id])
    old = next(iter(index_state.read(connection, space.id, [memory.id])), None)
    changed = memories.update(connection, memory.id, space.id, update)
    if old is None or changed is None:
        return None
    if vectors:
        memory_vectors.replace(connection, space.id, {old.ordinal: vectors[0]})
    if old.closed:
        # The vector written above is live; that of a closed memory must not be.
        memory_vectors.set_live(connection, space.id, [old.ordinal], live=False)
        return changed
    if update.text is not None:
        entry = entries.in_version(space.term_version)[changed.text]
        postings.remove(connection, space.id, {old.ordinal: old.terms})
        postings.add(connection, space.id, {old.ordinal: entry.weights})
        remove_passages(connection, space, [old.ordinal])
        insert_passages(connection, space, {old.ordinal: entry.passages})
        index_state.set_terms(connection, space.id, {old.ordinal: ([*entry.weights], entry.asks)})
    counts = Counter({changed.speaker: 1})
    counts.subtract({old.speaker: 1})
    spaces.add_speaker_counts(connection, space.id, counts)
    return changed

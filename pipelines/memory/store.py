"""Write, close and reopen memories with their index entries.

A memory's row, terms, vector and the statistics of its space change in one transaction, under the lock of the space.
Texts are embedded, and their index entries found, before the lock is taken, because that takes long.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from psycopg.errors import ForeignKeyViolation

from models.jobs.attempt_context import Attempt
from models.memory import index_state, memories, postings, sources, spaces, vector_codes
from models.memory import vectors as memory_vectors
from models.memory.memories import NewMemory
from models.memory.spaces import Space, SpaceKey
from models.platform.database import Connection, Database
from models.platform.errors import PermanentFailure
from pipelines.memory.index_entries import NO_ENTRIES, IndexEntries
from pipelines.memory.passages import insert_passages, remove_passages

#: Embeds texts as unit vectors, in order.
Embed = Callable[[Sequence[str]], list[list[float]]]

#: Memories written in one transaction. Embedding them takes 1 to 2 s on a slow core, and 8 s for the longest texts.
BATCH = 64

#: Texts embedded between two checks of an attempt: at most a second of work.
CHECKED_TEXTS = 8


def stoppable(embed: Embed, attempt: Attempt) -> Embed:
    """Return an embedder that raises the attempt's reason to stop between a few texts."""

    def embed_until_stopped(texts: Sequence[str]) -> list[list[float]]:
        vectors: list[list[float]] = []
        for start in range(0, len(texts), CHECKED_TEXTS):
            attempt.check()
            vectors += embed(texts[start : start + CHECKED_TEXTS])
        return vectors

    return embed_until_stopped


def write_memories(database: Database, embed: Embed, key: SpaceKey, new_memories: Sequence[NewMemory]) -> list[str]:
    """Write at most BATCH memories into a space, all or none, and return their ids in order.

    A memory whose id or unique key exists is not written again; the existing id is returned. Raises EngineError, and
    PermanentFailure if the account or the user is deleted meanwhile, or the account has reached its limit of spaces.
    """
    with database.connection() as connection:
        space = open_space(connection, key)
        missing = select_missing(new_memories, memories.existing_ids(connection, space.id, new_memories))
    vectors = dict(zip((new.id for new in missing), embed([new.text for new in missing]), strict=True))
    entries = IndexEntries(space.term_version, (new.text for new in missing))
    with database.transaction() as connection:
        space = lock_space(connection, space.id)
        existing = memories.existing_ids(connection, space.id, new_memories)
        inserted = [new for new in missing if new.id not in existing and (new.unique_key or "") not in existing]
        insert_memories(connection, space, [(new, vectors[new.id]) for new in inserted], entries)
    ids_by_key = {new.unique_key: new.id for new in inserted if new.unique_key}
    return [_stored_id(new, existing, ids_by_key) for new in new_memories]


def open_space(connection: Connection, key: SpaceKey) -> Space:
    """Find or create a space. Raises PermanentFailure if it cannot be created."""
    space = open_within_limit(connection, key)
    if space is None:
        message = "This account has reached its limit of memory spaces. Delete those of end users who have left."
        raise PermanentFailure(message, code="memory_spaces_exceeded")
    return space


def open_within_limit(connection: Connection, key: SpaceKey) -> Space | None:
    """Find or create a space; None if the account has reached its limit of spaces.

    Raises PermanentFailure if the account or the user was deleted.
    """
    try:
        return spaces.find_or_create(connection, key)
    except ForeignKeyViolation:
        raise PermanentFailure("The account or user of these memories was deleted.", code="deleted") from None


def _stored_id(new: NewMemory, existing: Mapping[str, str], ids_by_key: Mapping[str, str]) -> str:
    """Return the id under which a memory is stored: its own, or that of the memory with the same unique key."""
    key = new.unique_key or ""
    return existing.get(new.id) or existing.get(key) or ids_by_key.get(key, new.id)


def select_missing(new_memories: Sequence[NewMemory], existing: Mapping[str, str]) -> list[NewMemory]:
    """Select the memories that are not stored yet, each unique key once."""
    missing: dict[str, NewMemory] = {}
    for new in new_memories:
        if new.id not in existing and (new.unique_key or "") not in existing:
            missing.setdefault(new.unique_key or new.id, new)
    return list(missing.values())


def lock_space(connection: Connection, space_id: int) -> Space:
    """Lock a space for writing until the transaction ends. Raises PermanentFailure if the space was deleted."""
    space = spaces.lock(connection, space_id)
    if space is None:
        raise PermanentFailure("These memories were deleted.", code="deleted")
    return space


def insert_memories(
    connection: Connection,
    space: Space,
    new_memories: Sequence[tuple[NewMemory, Sequence[float]]],
    entries: IndexEntries = NO_ENTRIES,
) -> None:
    """Insert memories with their vectors. The caller holds the lock of the space, and found the entries before."""
    if not new_memories:
        return
    entries = entries.in_version(space.term_version)
    numbered = list(enumerate(new_memories, start=space.next_ordinal))
    found = {ordinal: entries[new.text] for ordinal, (new, _) in numbered}
    rows = [(new, ordinal, [*found[ordinal].weights], found[ordinal].asks) for ordinal, (new, _) in numbered]
    memories.insert(connection, space, rows)
    sources.cite(connection, space.id, [new for new, _ in new_memories])
    memory_vectors.insert(connection, space.id, {ordinal: vector for ordinal, (_, vector) in numbered})
    postings.add(connection, space.id, {ordinal: entry.weights for ordinal, entry in found.items()})
    insert_passages(connection, space, {ordinal: entry.passages for ordinal, entry in found.items()})
    spaces.add_counts(connection, space.id, ordinals=len(new_memories), live=len(new_memories))
    spaces.add_speaker_counts(connection, space.id, Counter(new.speaker for new, _ in new_memories))
    vector_codes.pack_filled(connection, space, len(new_memories))


def remove_from_indexes(connection: Connection, space: Space, ids: Sequence[str]) -> list[int]:
    """Remove memories from postings and statistics, and return the ordinals of those that exist, closed ones included.

    The caller holds the lock of the space, and changes rows and vectors.
    """
    states = index_state.read(connection, space.id, ids)
    live = [memory for memory in states if not memory.closed]
    postings.remove(connection, space.id, {memory.ordinal: memory.terms for memory in live})
    remove_passages(connection, space, [memory.ordinal for memory in live])
    if live:
        spaces.add_counts(connection, space.id, live=-len(live))
        speakers = Counter(memory.speaker for memory in live)
        spaces.add_speaker_counts(connection, space.id, {name: -count for name, count in speakers.items()})
    return [memory.ordinal for memory in states]


def close_memories(connection: Connection, space: Space, ids: Sequence[str], by: str | None = None) -> None:
    """Exclude memories from recall; `by` is the id of the memory that replaces them.

    The caller holds the lock of the space.
    """
    memory_vectors.set_live(connection, space.id, remove_from_indexes(connection, space, ids), live=False)
    index_state.close(connection, space.id, ids, by)


def reopen_memories(
    connection: Connection, space: Space, ids: Sequence[str], entries: IndexEntries = NO_ENTRIES
) -> None:
    """Include closed memories in recall again, except those whose text was erased.

    The caller holds the lock of the space, and found the entries before.
    """
    entries = entries.in_version(space.term_version)
    closed = [memory for memory in index_state.read(connection, space.id, ids) if memory.closed and memory.text]
    index_state.reopen(connection, space.id, [memory.id for memory in closed])
    memory_vectors.set_live(connection, space.id, [memory.ordinal for memory in closed], live=True)
    found = {memory.ordinal: entries[memory.text] for memory in closed}
    postings.add(connection, space.id, {ordinal: entry.weights for ordinal, entry in found.items()})
    insert_passages(connection, space, {ordinal: entry.passages for ordinal, entry in found.items()})
    rows = {ordinal: ([*entry.weights], entry.asks) for ordinal, entry in found.items()}
    index_state.set_terms(connection, space.id, rows)
    spaces.add_counts(connection, space.id, live=len(closed))
    spaces.add_speaker_counts(connection, space.id, Counter(memory.speaker for memory in closed))

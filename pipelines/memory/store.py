"""Memories are written: rows, terms, vectors and statistics in one transaction, under the lock of their space.

Embedding takes long, so it is done before the lock is taken.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from psycopg.errors import ForeignKeyViolation

from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.memory import index_state, memories, postings, sources, spaces
from models.memory import vectors as memory_vectors
from models.memory.memories import NewMemory
from models.memory.spaces import Space
from models.memory.vector_indexes import FEWEST, MOST
from models.platform.database import Connection, Database
from models.platform.errors import PermanentFailure
from pipelines.memory import terms

#: Texts to unit vectors.
Embed = Callable[[Sequence[str]], list[list[float]]]

#: Memories of one transaction: a second or two of embedding on a slow core, between two looks at whether to go on.
BATCH = 64


@dataclass(frozen=True, slots=True)
class WriteResult:
    """Ids of memories in the order in which they were given, and how many of them did not stand before."""

    ids: list[str]
    new: int


def write_memories(
    database: Database, embed: Embed, account_id: str, user_id: str, news: Sequence[NewMemory]
) -> WriteResult:
    """Write memories into the user's space in the account, a BATCH at most: all of them or none.

    Raises PermanentFailure where the account or the user goes meanwhile, and EngineError.
    """
    with database.connection() as connection:
        space = open_space(connection, account_id, user_id)
        missing = select_missing(news, memories.existing_ids(connection, space.id, news))
    vectors = dict(zip((new.id for new in missing), embed([new.text for new in missing]), strict=True))
    with database.transaction() as connection:
        space = lock_space(connection, space.id)
        known = memories.existing_ids(connection, space.id, news)
        added = [new for new in missing if new.id not in known and (new.unique_key or "") not in known]
        insert_memories(connection, space, [(new, vectors[new.id]) for new in added])
        enqueue_index_job(connection, space.id)
    keys = {new.unique_key: new.id for new in added if new.unique_key}
    return WriteResult([_id_of(new, known, keys) for new in news], len(added))


def open_space(connection: Connection, account_id: str, user_id: str) -> Space:
    """The user's space in the account, made where there is none. Raises PermanentFailure where either is gone."""
    try:
        return spaces.find_or_create(connection, account_id, user_id)
    except ForeignKeyViolation:
        raise PermanentFailure("The account or the user of these memories is gone.", code="deleted") from None


def _id_of(new: NewMemory, known: Mapping[str, str], added: Mapping[str, str]) -> str:
    """Its own id, or that of the one that stands under its key."""
    return known.get(new.id) or known.get(new.unique_key or "") or added.get(new.unique_key or "", new.id)


def select_missing(news: Sequence[NewMemory], known: Mapping[str, str]) -> list[NewMemory]:
    """Those that do not stand yet, each unique key once."""
    left: dict[str, NewMemory] = {}
    for new in news:
        if new.id not in known and (new.unique_key or "") not in known:
            left.setdefault(new.unique_key or new.id, new)
    return list(left.values())


def lock_space(connection: Connection, space_id: int) -> Space:
    """The space, for this writer alone. Raises PermanentFailure when it is gone, as its account may be."""
    space = spaces.lock(connection, space_id)
    if space is None:
        raise PermanentFailure("These memories have been erased.", code="deleted")
    return space


def insert_memories(connection: Connection, space: Space, news: Sequence[tuple[NewMemory, Sequence[float]]]) -> None:
    """Write new memories with their vectors. For the holder of the lock."""
    if not news:
        return
    numbered = list(enumerate(news, start=space.next_ordinal))
    weights = {ordinal: terms.term_weights(new.text) for ordinal, (new, _) in numbered}
    rows = [(new, ordinal, [*weights[ordinal]], terms.is_question(new.text)) for ordinal, (new, _) in numbered]
    memories.insert(connection, space, rows)
    sources.cite(connection, space.id, [new for new, _ in news])
    memory_vectors.put(connection, space.id, {ordinal: vector for ordinal, (_, vector) in numbered})
    postings.add(connection, space.id, weights)
    spaces.add_counts(connection, space.id, ordinals=len(news), live=len(news))
    spaces.add_speaker_counts(connection, space.id, Counter(new.speaker for new, _ in news))


def remove_from_indexes(connection: Connection, space: Space, ids: Sequence[str]) -> list[int]:
    """Take memories out of postings and statistics, as far as they stand there: their ordinals, also of those that
    were closed. For the holder of the lock, who does the rest."""
    standing = index_state.read(connection, space.id, ids)
    live = [memory for memory in standing if not memory.closed]
    postings.remove(connection, space.id, {memory.ordinal: memory.terms for memory in live})
    if live:
        spaces.add_counts(connection, space.id, live=-len(live))
        speakers = Counter(memory.speaker for memory in live)
        spaces.add_speaker_counts(connection, space.id, {name: -count for name, count in speakers.items()})
    return [memory.ordinal for memory in standing]


def close_memories(connection: Connection, space: Space, ids: Sequence[str], by: str | None = None) -> None:
    """Let recall pass memories by from now on; `by` is what takes their place. For the holder of the lock."""
    memory_vectors.set_live(connection, space.id, remove_from_indexes(connection, space, ids), live=False)
    index_state.close(connection, space.id, ids, by)


def reopen_memories(connection: Connection, space: Space, ids: Sequence[str]) -> None:
    """Let recall see closed memories again, but for those without words. For the holder of the lock."""
    closed = [memory for memory in index_state.read(connection, space.id, ids) if memory.closed and memory.text]
    index_state.reopen(connection, space.id, [memory.id for memory in closed])
    memory_vectors.set_live(connection, space.id, [memory.ordinal for memory in closed], live=True)
    weights = {memory.ordinal: terms.term_weights(memory.text) for memory in closed}
    postings.add(connection, space.id, weights)
    rows = {memory.ordinal: ([*weights[memory.ordinal]], terms.is_question(memory.text)) for memory in closed}
    index_state.set_terms(connection, space.id, rows)
    spaces.add_counts(connection, space.id, live=len(closed))
    spaces.add_speaker_counts(connection, space.id, Counter(memory.speaker for memory in closed))


def enqueue_index_job(connection: Connection, space_id: int) -> None:
    """Enqueue the job that makes or drops a space's own index, where its size asks for it."""
    if spaces.request_index(connection, space_id, most=MOST, fewest=FEWEST):
        enqueue(connection, NewJob("memory.index", PLATFORM_ACCOUNT, {"space_id": space_id}))

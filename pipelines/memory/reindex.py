"""`memory.reindex`: index a user's memories by the present terms, split long ones, and embed their passages.

Versions before schema 0021 index by other terms (`earlier_terms`) and do not know passages. A space keeps those terms
until the upgrade is finalized. Then its writers use the present terms, and this job indexes the older memories again,
the newest first; meanwhile a query has both forms of each word.
"""

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import enqueue
from models.memory import index_state, passages, postings, spaces
from models.memory.index_state import IndexState
from models.memory.spaces import Space, SpaceKey
from models.platform.compatibility import oldest_code
from models.platform.database import Connection, Database
from pipelines.memory import terms
from pipelines.memory.index_entries import IndexEntries
from pipelines.memory.passages import insert_passages, reindex_job, remove_passages
from pipelines.memory.store import Embed, stoppable
from pipelines.time_slice import TimeSlice

#: The first schema version whose code knows passages and the present terms.
SINCE = "0021"

#: Memories indexed in one transaction.
BATCH = 32

#: Passages embedded between two transactions, in about a second.
EMBEDDED = 32

#: Spaces for which a night enqueues jobs.
SPACES_PER_NIGHT = 10_000


def run(embed: Embed, attempt: Attempt) -> Ending:
    """Index and embed in batches. The next attempt continues after the last. Raises EngineError, the reason to stop,
    and Released after a time slice.
    """
    time_slice, embed, done = TimeSlice(attempt), stoppable(embed, attempt), 0
    with attempt.database.connection() as connection:
        space = spaces.find(connection, SpaceKey.of_job(attempt.job))
        if space is not None and oldest_code(connection) >= SINCE:
            spaces.begin_reindex(connection, space.id, terms.CURRENT)
    while space is not None and (
        count := _index_batch(attempt.database, space.id) or _embed_batch(attempt.database, embed, space.id)
    ):
        done += count
        attempt.report_progress(done, note="memories and passages indexed")
        time_slice.check()
    return plain_ending(attempt, "completed", result={"indexed": done})


def _index_batch(database: Database, space_id: int) -> int:
    """Index the newest memories again that may have earlier terms. Returns how many ordinals were done."""
    with database.connection() as connection:
        if (space := spaces.read(connection, space_id)) is None:
            return 0
        states = _read_batch(connection, space)
    entries = IndexEntries(space.term_version, (state.text for state in states if not state.closed))
    with database.transaction() as connection:
        space = spaces.lock(connection, space_id)
        if space is None or not space.reindex_below:
            return 0
        _index(connection, space, _read_batch(connection, space), entries)
        first = max(0, space.reindex_below - BATCH)
        spaces.set_reindex_below(connection, space.id, first)
        return space.reindex_below - first


def _read_batch(connection: Connection, space: Space) -> list[IndexState]:
    """Read the newest memories that may have earlier terms."""
    first = max(0, space.reindex_below - BATCH)
    return index_state.read_range(connection, space.id, first, space.reindex_below)


def _index(connection: Connection, space: Space, states: list[IndexState], entries: IndexEntries) -> None:
    """Index memories again by entries that were found before the lock; a text that changed meanwhile has new ones."""
    live = {state.ordinal: state for state in states if not state.closed}
    entries = entries.in_version(space.term_version)
    found = {ordinal: entries[state.text] for ordinal, state in live.items()}
    postings.remove(connection, space.id, {ordinal: state.terms for ordinal, state in live.items()})
    postings.add(connection, space.id, {ordinal: entry.weights for ordinal, entry in found.items()})
    index_state.set_terms(
        connection, space.id, {ordinal: ([*entry.weights], entry.asks) for ordinal, entry in found.items()}
    )
    remove_passages(connection, space, [*live])
    insert_passages(connection, space, {ordinal: entry.passages for ordinal, entry in found.items()})


def _embed_batch(database: Database, embed: Embed, space_id: int) -> int:
    """Embed passages without a vector. Returns how many there were."""
    with database.connection() as connection:
        texts = passages.without_vector(connection, space_id, EMBEDDED)
    if texts:
        vectors = dict(zip(texts, embed(list(texts.values())), strict=True))
        with database.connection() as connection:
            passages.set_vectors(connection, space_id, vectors)
    return len(texts)


def enqueue_due(connection: Connection) -> int:
    """Enqueue the job for the spaces that need it, once the upgrade is finalized. Returns for how many."""
    if oldest_code(connection) < SINCE:
        return 0
    due = spaces.to_reindex(connection, terms.CURRENT, SPACES_PER_NIGHT)
    for space in due:
        enqueue(connection, reindex_job(space.key))
    return len(due)

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
from models.memory.spaces import Space
from models.platform.compatibility import oldest_code
from models.platform.database import Connection, Database
from pipelines.memory import terms
from pipelines.memory.passages import add_passages, reindex_job, remove_passages
from pipelines.memory.store import Embed, stoppable
from pipelines.time_slice import TimeSlice

#: The first schema version whose code knows passages and the present terms.
SINCE = "0021"

#: Memories indexed in one transaction, which holds the lock of the space for 0.1 s, of the longest texts for a second.
BATCH = 32

#: Passages embedded between two transactions, in about a second.
EMBEDDED = 32

#: Spaces for which a night enqueues jobs.
SPACES_PER_NIGHT = 10_000


def run(embed: Embed, attempt: Attempt) -> Ending:
    """Index and embed in batches. The next attempt continues after the last. Raises EngineError, the reason to stop,
    and Released after a time slice.
    """
    account_id, user_id = attempt.job.account_id, attempt.job.arguments["user_id"]
    time_slice, embed, done = TimeSlice(attempt), stoppable(embed, attempt), 0
    with attempt.database.connection() as connection:
        space = spaces.find(connection, account_id, user_id)
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
    with database.transaction() as connection:
        space = spaces.lock(connection, space_id)
        if space is None or not space.reindex_below:
            return 0
        first = max(0, space.reindex_below - BATCH)
        _index(connection, space, index_state.read_range(connection, space.id, first, space.reindex_below))
        spaces.set_reindex_below(connection, space.id, first)
        return space.reindex_below - first


def _index(connection: Connection, space: Space, states: list[IndexState]) -> None:
    live = {state.ordinal: state for state in states if not state.closed}
    weights = {ordinal: terms.term_weights(state.text, space.term_version) for ordinal, state in live.items()}
    postings.remove(connection, space.id, {ordinal: state.terms for ordinal, state in live.items()})
    postings.add(connection, space.id, weights)
    rows = {ordinal: ([*weights[ordinal]], terms.is_question(state.text)) for ordinal, state in live.items()}
    index_state.set_terms(connection, space.id, rows)
    remove_passages(connection, space, [*live])
    add_passages(connection, space, {ordinal: state.text for ordinal, state in live.items()})


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
        enqueue(connection, reindex_job(space.account_id, space.user_id))
    return len(due)

"""Revert a meditation: restore every memory that is still as the meditation left it.

`models/memory/meditation_changes.py` defines this for each kind of change. Later turns remain; a memory that was
deleted since stays deleted, and so do its duplicates.
"""

from models.memory import index_state, meditation_changes, meditations, spaces
from models.memory.meditations import Meditation
from models.memory.spaces import Space, SpaceKey
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, NotFound
from pipelines.memory import store
from pipelines.memory.forget_memories import delete_memories
from pipelines.memory.index_entries import NO_ENTRIES, IndexEntries


def revert(database: Database, meditation_id: str, key: SpaceKey) -> Meditation:
    """Undo all changes in one transaction; a reverted meditation is returned as it is.

    Raises NotFound, and Conflict if nothing was applied or the changes are no longer recorded.
    """
    entries = _entries_of_closed(database, meditation_id, key)
    with database.transaction() as connection:
        meditation = meditations.lock(connection, meditation_id, key.account_id)
        if meditation is None or meditation.key != key:
            raise NotFound(f"Meditation with id '{meditation_id}' not found.", param="meditation_id")
        if meditation.outcome != "applied":
            raise Conflict("This meditation changed nothing, so it cannot be reverted.", code="not_applied")
        if meditation.reverted_at is None and meditations.too_old(connection, meditation.id):
            raise Conflict("This meditation is too old to be reverted.", code="too_old")
        if meditation.reverted_at is None:
            _revert(connection, meditation, entries)
        reverted = meditations.read(connection, meditation_id, key)
    assert reverted is not None
    return reverted


def _entries_of_closed(database: Database, meditation_id: str, key: SpaceKey) -> IndexEntries:
    """Find the index entries of the memories that a meditation closed, before their space is locked."""
    with database.connection() as connection:
        if (space := spaces.find(connection, key)) is None:
            return NO_ENTRIES
        closed = meditation_changes.still_closed(connection, space.id, meditation_id)
        states = index_state.read(connection, space.id, list(closed))
    return IndexEntries(space.term_version, (state.text for state in states if state.text))


def _revert(connection: Connection, meditation: Meditation, entries: IndexEntries) -> None:
    found = spaces.find(connection, meditation.key)
    space = spaces.lock(connection, found.id) if found else None
    if space is not None:
        undo_changes(connection, space, meditation.id, entries)
    counts = meditation_changes.count_reverted(connection, meditation.id)
    meditations.mark_reverted(connection, meditation.id, meditation.account_id, counts)


def undo_changes(connection: Connection, space: Space, meditation_id: str, entries: IndexEntries) -> None:
    """Undo each change whose memory is as the meditation left it. The caller holds the lock of the space."""
    meditation_changes.restore_importances(connection, space.id, meditation_id)
    closed = meditation_changes.still_closed(connection, space.id, meditation_id)
    store.reopen_memories(connection, space, list(closed), entries)
    meditation_changes.set_updated_at(connection, space.id, closed)
    meditation_changes.mark_reverted(connection, meditation_id, "closed", list(closed))
    created = meditation_changes.still_created(connection, space.id, meditation_id)
    delete_memories(connection, space, created)
    meditation_changes.mark_reverted(connection, meditation_id, "created", created)

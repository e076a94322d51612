"""A meditation is taken back: what it changed is as it was before, but for what somebody has changed since.

What that means for each change stands in `models/memory/meditation_changes.py`. Turns that came later stay; a memory that was
deleted stays deleted, and so does what repeats it.
"""

from models.memory import meditation_changes, meditations, spaces
from models.memory.meditations import Meditation
from models.memory.spaces import Space
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, NotFound
from pipelines.memory import store
from pipelines.memory.forget_memories import delete_memories


def revert(database: Database, meditation_id: str, account_id: str, user_id: str) -> Meditation:
    """Take all changes back at once; again is as once. Raises NotFound, and Conflict where nothing was changed."""
    with database.transaction() as connection:
        held = meditations.lock(connection, meditation_id, account_id)
        if held is None or held.user_id != user_id:
            raise NotFound(f"Meditation with id '{meditation_id}' not found.", param="meditation_id")
        if held.outcome != "applied":
            raise Conflict("This meditation has changed nothing that could be reverted.", code="not_applied")
        if held.reverted_at is None and meditations.too_old(connection, held.id):
            raise Conflict("This meditation is too old to be reverted.", code="too_old")
        if held.reverted_at is None:
            _take_back(connection, held)
        reverted = meditations.read(connection, meditation_id, account_id, user_id)
    assert reverted is not None
    return reverted


def _take_back(connection: Connection, held: Meditation) -> None:
    found = spaces.find(connection, held.account_id, held.user_id)
    space = spaces.lock(connection, found.id) if found else None
    if space is not None:
        undo_changes(connection, space, held.id)
        store.enqueue_index_job(connection, space.id)
    tally = meditation_changes.count_reverted(connection, held.id)
    meditations.mark_reverted(connection, held.id, held.account_id, tally)


def undo_changes(connection: Connection, space: Space, meditation_id: str) -> None:
    """Undo each change whose memory stands as the meditation left it. For the holder of the lock."""
    meditation_changes.restore_importances(connection, space.id, meditation_id)
    closed = meditation_changes.still_closed(connection, space.id, meditation_id)
    store.reopen_memories(connection, space, list(closed))
    meditation_changes.set_updated_at(connection, space.id, closed)
    meditation_changes.mark_reverted(connection, meditation_id, "closed", list(closed))
    created = meditation_changes.still_created(connection, space.id, meditation_id)
    delete_memories(connection, space, created)
    meditation_changes.mark_reverted(connection, meditation_id, "created", created)

"""The changes of meditations, memory by memory, and the statements that revert them.

A change is reverted if the memory is still as the meditation left it: for a weighed memory its importance, for a closed
one the time and its replacement, for a created one its text. Later changes are kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from models.memory import meditations
from models.platform.database import Connection, fetch_all

ChangeAction = Literal["created", "closed", "weighed"]


@dataclass(frozen=True, slots=True)
class MeditationChange:
    """A row of `meditation_changes`. `reverted` is True if it was, False if the memory was changed since."""

    position: int
    memory_id: str
    action: ChangeAction
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    reverted: bool | None


PAGE = """
SELECT position, memory_id, action, reason, before, after, reverted FROM meditation_changes
JOIN meditations ON meditations.id = meditation_id
WHERE meditation_id = %(id)s AND account_id = %(account_id)s AND position > %(after)s
  AND (%(action)s::text IS NULL OR action = %(action)s)
ORDER BY position LIMIT %(limit)s
"""


def page(
    connection: Connection,
    meditation_id: str,
    account_id: str,
    *,
    action: ChangeAction | None = None,
    after: int = -1,
    limit: int = 20,
) -> list[MeditationChange]:
    """Return at most `limit` changes after the position `after`, in order."""
    parameters = {"id": meditation_id, "account_id": account_id, "action": action, "after": after, "limit": limit}
    return [MeditationChange(**row) for row in fetch_all(connection, PAGE, parameters)]


@dataclass(frozen=True, slots=True)
class LiveMemory:
    """A live memory before a change."""

    id: str
    ordinal: int
    importance: float
    updated_at: datetime


READ_LIVE = """
SELECT id, ordinal, importance, updated_at FROM memories
WHERE space_id = %(space_id)s AND id = ANY(%(ids)s) AND closed_at IS NULL
"""


def read_live(connection: Connection, space_id: int, ids: Iterable[str]) -> dict[str, LiveMemory]:
    """Return those of the memories that are live, by id. The caller holds the space's lock."""
    rows = fetch_all(connection, READ_LIVE, {"space_id": space_id, "ids": list(ids)})
    return {row["id"]: LiveMemory(**row) for row in rows}


# In one statement with the record of the change.
SET_IMPORTANCES = """
WITH weighed AS (
    UPDATE memories SET importance = new.importance
    FROM unnest(%(ids)s::text[], %(importances)s::real[]) AS new (id, importance)
    WHERE space_id = %(space_id)s AND memories.id = new.id
    RETURNING memories.id, memories.importance
)
INSERT INTO meditation_changes (meditation_id, position, memory_id, action, reason, before, after)
SELECT %(meditation_id)s, %(first)s + position - 1, weighed.id, 'weighed', reason,
       jsonb_build_object('importance', was), jsonb_build_object('importance', importance)
FROM weighed JOIN unnest(%(ids)s::text[], %(befores)s::real[], %(reasons)s::text[])
    WITH ORDINALITY AS old (old_id, was, reason, position) ON old_id = weighed.id
"""


def set_importances(
    connection: Connection,
    space_id: int,
    meditation_id: str,
    weights: Sequence[tuple[LiveMemory, float, str]],
    first: int,
) -> None:
    """Set the importance of memories, each with a reason, and record the changes with positions from `first`."""
    values = {
        "ids": [memory.id for memory, _, _ in weights],
        "befores": [memory.importance for memory, _, _ in weights],
        "importances": [weight for _, weight, _ in weights],
        "reasons": [reason for _, _, reason in weights],
    }
    connection.execute(
        SET_IMPORTANCES, {"space_id": space_id, "meditation_id": meditation_id, "first": first, **values}
    )


SET_REPLACEMENTS = """
UPDATE memories SET closed_by = new.by FROM unnest(%(ids)s::text[], %(replacements)s::text[]) AS new (id, by)
WHERE space_id = %(space_id)s AND memories.id = new.id
"""


def set_replacements(connection: Connection, space_id: int, replacements: Mapping[str, str]) -> None:
    """Set the replacements of memories that the caller has just closed: id → id."""
    connection.execute(
        SET_REPLACEMENTS, {"space_id": space_id, "ids": list(replacements), "replacements": list(replacements.values())}
    )


RECORD_CLOSED = """
INSERT INTO meditation_changes (meditation_id, position, memory_id, action, reason, before, after)
SELECT %(meditation_id)s, %(first)s + position - 1, id, 'closed', reason,
       jsonb_build_object('closed_at', null, 'closed_by', null, 'updated_at', was),
       jsonb_build_object('closed_at', closed_at, 'closed_by', closed_by, 'updated_at', updated_at)
FROM memories JOIN unnest(%(ids)s::text[], %(befores)s::timestamptz[], %(reasons)s::text[])
    WITH ORDINALITY AS old (old_id, was, reason, position) ON old_id = id
WHERE space_id = %(space_id)s
"""


def record_closed(
    connection: Connection,
    space_id: int,
    meditation_id: str,
    closed: Sequence[tuple[LiveMemory, str]],
    first: int,
) -> None:
    """Record memories that the caller has just closed, with their state before, each with a reason."""
    values = {
        "ids": [memory.id for memory, _ in closed],
        "befores": [memory.updated_at for memory, _ in closed],
        "reasons": [reason for _, reason in closed],
    }
    connection.execute(RECORD_CLOSED, {"space_id": space_id, "meditation_id": meditation_id, "first": first, **values})


# A digest of the text suffices to see whether it has changed.
RECORD_CREATED = """
INSERT INTO meditation_changes (meditation_id, position, memory_id, action, reason, before, after)
SELECT %(meditation_id)s, %(first)s + position - 1, id, 'created', reason, null,
       jsonb_build_object('kind', kind, 'digest', md5(text))
FROM memories JOIN unnest(%(ids)s::text[], %(reasons)s::text[])
    WITH ORDINALITY AS new (new_id, reason, position) ON new_id = id
WHERE space_id = %(space_id)s
"""


def record_created(
    connection: Connection, space_id: int, meditation_id: str, created: Mapping[str, str], first: int
) -> None:
    """Record memories that the caller has just created: id → reason."""
    values = {"ids": list(created), "reasons": list(created.values()), "first": first}
    connection.execute(RECORD_CREATED, {"space_id": space_id, "meditation_id": meditation_id, **values})


RESTORE_IMPORTANCES = """
WITH restored AS (
    UPDATE memories SET importance = (before ->> 'importance')::real
    FROM meditation_changes
    WHERE meditation_id = %(meditation_id)s AND action = 'weighed' AND memories.id = memory_id
      AND space_id = %(space_id)s AND importance = (after ->> 'importance')::real
    RETURNING position
)
UPDATE meditation_changes SET reverted = position IN (SELECT position FROM restored)
WHERE meditation_id = %(meditation_id)s AND action = 'weighed'
"""


def restore_importances(connection: Connection, space_id: int, meditation_id: str) -> None:
    """Restore the importance of memories that have not been weighed again since."""
    connection.execute(RESTORE_IMPORTANCES, {"space_id": space_id, "meditation_id": meditation_id})


# Still closed by this meditation. A memory whose replacement was deleted stays closed: it had the same content.
STILL_CLOSED = """
SELECT memories.id, memories.updated_at,
       CASE WHEN memories.updated_at = (after ->> 'updated_at')::timestamptz
            THEN (before ->> 'updated_at')::timestamptz ELSE memories.updated_at END AS restored_at
FROM meditation_changes JOIN memories ON memories.id = memory_id
WHERE meditation_id = %(meditation_id)s AND action = 'closed' AND space_id = %(space_id)s
  AND closed_at = (after ->> 'closed_at')::timestamptz AND closed_by = after ->> 'closed_by'
  AND text <> '' AND EXISTS (SELECT FROM memories AS replacement WHERE replacement.id = memories.closed_by)
ORDER BY position
"""


def still_closed(connection: Connection, space_id: int, meditation_id: str) -> dict[str, datetime]:
    """Return the memories that are closed as the meditation left them → the time of their last change before it."""
    rows = fetch_all(connection, STILL_CLOSED, {"space_id": space_id, "meditation_id": meditation_id})
    return {row["id"]: row["restored_at"] for row in rows}


# One step suffices: a replacement is not itself a duplicate.
DUPLICATES = """
SELECT id FROM memories
WHERE space_id = %(space_id)s AND closed_by = ANY(%(ids)s) AND EXISTS (
    SELECT FROM meditation_changes
    WHERE memory_id = memories.id AND action = 'closed' AND reason = 'repeats' AND reverted IS NOT TRUE)
ORDER BY id
"""


def duplicates_of(connection: Connection, space_id: int, ids: Sequence[str]) -> list[str]:
    """Return the ids of closed memories that duplicate these."""
    return [row["id"] for row in fetch_all(connection, DUPLICATES, {"space_id": space_id, "ids": list(ids)})]


STILL_CREATED = """
SELECT memories.id FROM meditation_changes JOIN memories ON memories.id = memory_id
WHERE meditation_id = %(meditation_id)s AND action = 'created' AND space_id = %(space_id)s
  AND md5(text) = after ->> 'digest'
ORDER BY position
"""


def still_created(connection: Connection, space_id: int, meditation_id: str) -> list[str]:
    """Return the ids of memories that the meditation has created and whose text is unchanged."""
    rows = fetch_all(connection, STILL_CREATED, {"space_id": space_id, "meditation_id": meditation_id})
    return [row["id"] for row in rows]


# Changes of meditations that could be reverted until a day ago, so that no revert is running.
PRUNE = """
DELETE FROM meditation_changes WHERE (meditation_id, position) IN (
    SELECT meditation_id, position FROM meditations JOIN meditation_changes ON meditation_id = meditations.id
    WHERE created_at < now() - make_interval(days => %(days)s) LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete a batch of changes that can no longer be reverted. Returns how many."""
    return connection.execute(PRUNE, {"days": meditations.KEPT_DAYS + 1, "batch": batch}).rowcount


SET_UPDATED = """
UPDATE memories SET updated_at = old.updated_at
FROM unnest(%(ids)s::text[], %(times)s::timestamptz[]) AS old (id, updated_at)
WHERE space_id = %(space_id)s AND memories.id = old.id
"""


def set_updated_at(connection: Connection, space_id: int, times: Mapping[str, datetime]) -> None:
    """Set the time of the last change of memories."""
    if times:
        values = {"ids": list(times), "times": list(times.values())}
        connection.execute(SET_UPDATED, {"space_id": space_id, **values})


MARK_REVERTED = """
UPDATE meditation_changes SET reverted = memory_id = ANY(%(ids)s)
WHERE meditation_id = %(meditation_id)s AND action = %(action)s
"""


def mark_reverted(connection: Connection, meditation_id: str, action: ChangeAction, reverted: Sequence[str]) -> None:
    """Mark the changes of one action as reverted or not, by memory."""
    connection.execute(MARK_REVERTED, {"meditation_id": meditation_id, "action": action, "ids": list(reverted)})


COUNT_REVERTED = """
SELECT count(*) FILTER (WHERE reverted) AS undone, count(*) FILTER (WHERE NOT reverted) AS left
FROM meditation_changes WHERE meditation_id = %(meditation_id)s
"""


def count_reverted(connection: Connection, meditation_id: str) -> dict[str, int]:
    """Count the changes that were reverted, and those that were not."""
    rows = fetch_all(connection, COUNT_REVERTED, {"meditation_id": meditation_id})
    return {"undone": rows[0]["undone"], "left": rows[0]["left"]}

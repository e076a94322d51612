"""What meditations changed, memory by memory, and the statements that take it back.

A change is taken back where its memory still stands as the meditation left it, in what the change is about: a weight by
its importance, a closed memory by when and in whose favour it was closed, a written one by its words. Whatever
somebody has changed since is left as they wanted it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from models.memory import meditations
from models.platform.database import Connection, fetch_all

Action = Literal["created", "closed", "weighed"]


@dataclass(frozen=True, slots=True)
class MeditationChange:
    """A row of `meditation_changes`. `reverted`: True taken back, False left to who changed it again."""

    position: int
    memory_id: str
    action: Action
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
    action: Action | None = None,
    after: int = -1,
    limit: int = 20,
) -> list[MeditationChange]:
    """At most `limit` changes behind the position `after`, in the order in which they were made."""
    given = {"id": meditation_id, "account_id": account_id, "action": action, "after": after, "limit": limit}
    return [MeditationChange(**row) for row in fetch_all(connection, PAGE, given)]


@dataclass(frozen=True, slots=True)
class LiveMemory:
    """A live memory as it stands, for who is about to change it."""

    id: str
    ordinal: int
    importance: float
    updated_at: datetime


STANDING = """
SELECT id, ordinal, importance, updated_at FROM memories
WHERE space_id = %(space_id)s AND id = ANY(%(ids)s) AND closed_at IS NULL
"""


def read_live(connection: Connection, space_id: int, ids: Iterable[str]) -> dict[str, LiveMemory]:
    """Those of these memories that are live, by id. For the holder of the space's lock."""
    rows = fetch_all(connection, STANDING, {"space_id": space_id, "ids": list(ids)})
    return {row["id"]: LiveMemory(**row) for row in rows}


# Together with the change itself, so that neither stands without the other.
WEIGH = """
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
    """Give memories other weights, each with a reason; the changes are numbered from `first`."""
    given = {
        "ids": [memory.id for memory, _, _ in weights],
        "befores": [memory.importance for memory, _, _ in weights],
        "importances": [weight for _, weight, _ in weights],
        "reasons": [reason for _, _, reason in weights],
    }
    connection.execute(WEIGH, {"space_id": space_id, "meditation_id": meditation_id, "first": first, **given})


SUBSTITUTE = """
UPDATE memories SET closed_by = new.by FROM unnest(%(ids)s::text[], %(bys)s::text[]) AS new (id, by)
WHERE space_id = %(space_id)s AND memories.id = new.id
"""


def set_replacements(connection: Connection, space_id: int, bys: Mapping[str, str]) -> None:
    """Say what stands for memories that the caller has just closed: id → id."""
    connection.execute(SUBSTITUTE, {"space_id": space_id, "ids": list(bys), "bys": list(bys.values())})


# How memories stand that have just been closed.
NOTE_CLOSED = """
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
    """Record memories that the caller has just closed, as they stood before, each with a reason."""
    given = {
        "ids": [memory.id for memory, _ in closed],
        "befores": [memory.updated_at for memory, _ in closed],
        "reasons": [reason for _, reason in closed],
    }
    connection.execute(NOTE_CLOSED, {"space_id": space_id, "meditation_id": meditation_id, "first": first, **given})


# Its words only as what proves that they are still the same.
NOTE_CREATED = """
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
    """Record memories that the caller has just written: id → reason."""
    given = {"ids": list(created), "reasons": list(created.values()), "first": first}
    connection.execute(NOTE_CREATED, {"space_id": space_id, "meditation_id": meditation_id, **given})


UNWEIGH = """
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
    """Give memories back the weights that they had, unless they have others by now."""
    connection.execute(UNWEIGH, {"space_id": space_id, "meditation_id": meditation_id})


# Closed as the meditation has closed them. Whose substitute has been deleted stays closed: it said the same, and who
# deletes something wants to hear of it no more.
STILL_CLOSED = """
SELECT memories.id, memories.updated_at,
       CASE WHEN memories.updated_at = (after ->> 'updated_at')::timestamptz
            THEN (before ->> 'updated_at')::timestamptz ELSE memories.updated_at END AS restored_at
FROM meditation_changes JOIN memories ON memories.id = memory_id
WHERE meditation_id = %(meditation_id)s AND action = 'closed' AND space_id = %(space_id)s
  AND closed_at = (after ->> 'closed_at')::timestamptz AND closed_by = after ->> 'closed_by'
  AND text <> '' AND EXISTS (SELECT FROM memories AS substitute WHERE substitute.id = memories.closed_by)
ORDER BY position
"""


def still_closed(connection: Connection, space_id: int, meditation_id: str) -> dict[str, datetime]:
    """Memories that stand as the meditation has closed them → the time of their last change before that."""
    rows = fetch_all(connection, STILL_CLOSED, {"space_id": space_id, "meditation_id": meditation_id})
    return {row["id"]: row["restored_at"] for row in rows}


# Whatever closed them for it, in one step: what stands for others does not itself repeat anything.
REPEATING = """
SELECT id FROM memories
WHERE space_id = %(space_id)s AND closed_by = ANY(%(ids)s) AND EXISTS (
    SELECT FROM meditation_changes
    WHERE memory_id = memories.id AND action = 'closed' AND reason = 'repeats' AND reverted IS NOT TRUE)
ORDER BY id
"""


def duplicates_of(connection: Connection, space_id: int, ids: Sequence[str]) -> list[str]:
    """Closed memories that say what these say."""
    return [row["id"] for row in fetch_all(connection, REPEATING, {"space_id": space_id, "ids": list(ids)})]


STILL_CREATED = """
SELECT memories.id FROM meditation_changes JOIN memories ON memories.id = memory_id
WHERE meditation_id = %(meditation_id)s AND action = 'created' AND space_id = %(space_id)s
  AND md5(text) = after ->> 'digest'
ORDER BY position
"""


def still_created(connection: Connection, space_id: int, meditation_id: str) -> list[str]:
    """Memories that the meditation has written, in its own words still."""
    rows = fetch_all(connection, STILL_CREATED, {"space_id": space_id, "meditation_id": meditation_id})
    return [row["id"] for row in rows]


# A batch of changes of the meditations that can't be taken back any more, since a day: nobody is at it just now.
PRUNE = """
DELETE FROM meditation_changes WHERE (meditation_id, position) IN (
    SELECT meditation_id, position FROM meditations JOIN meditation_changes ON meditation_id = meditations.id
    WHERE created_at < now() - make_interval(days => %(days)s) LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Forget a batch of them; returns how many."""
    return connection.execute(PRUNE, {"days": meditations.KEPT_DAYS + 1, "batch": batch}).rowcount


SET_UPDATED = """
UPDATE memories SET updated_at = old.updated_at
FROM unnest(%(ids)s::text[], %(times)s::timestamptz[]) AS old (id, updated_at)
WHERE space_id = %(space_id)s AND memories.id = old.id
"""


def set_updated_at(connection: Connection, space_id: int, times: Mapping[str, datetime]) -> None:
    """Say when memories were changed last."""
    if times:
        given = {"ids": list(times), "times": list(times.values())}
        connection.execute(SET_UPDATED, {"space_id": space_id, **given})


MARK = """
UPDATE meditation_changes SET reverted = memory_id = ANY(%(ids)s)
WHERE meditation_id = %(meditation_id)s AND action = %(action)s
"""


def mark_reverted(connection: Connection, meditation_id: str, action: Action, reverted: Sequence[str]) -> None:
    """Note which changes of a kind were taken back, by memory, and that the others were not."""
    connection.execute(MARK, {"meditation_id": meditation_id, "action": action, "ids": list(reverted)})


TALLY = """
SELECT count(*) FILTER (WHERE reverted) AS undone, count(*) FILTER (WHERE NOT reverted) AS left
FROM meditation_changes WHERE meditation_id = %(meditation_id)s
"""


def count_reverted(connection: Connection, meditation_id: str) -> dict[str, int]:
    """How many changes were taken back, and how many left."""
    rows = fetch_all(connection, TALLY, {"meditation_id": meditation_id})
    return {"undone": rows[0]["undone"], "left": rows[0]["left"]}

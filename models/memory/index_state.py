"""How memories stand in the indexes: under which terms, or closed. For the holder of the space's lock.

A closed memory is under no terms: it can still be read, and recall passes it by. `memories` has the rows themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from models.platform.database import Connection, fetch_all


@dataclass(frozen=True, slots=True)
class IndexState:
    """How a memory stands in the indexes: under which terms, unless it is closed, and as whose."""

    id: str
    ordinal: int
    text: str
    speaker: str
    terms: list[str]
    closed: bool


STANDING = """
SELECT id, ordinal, text, speaker, terms, closed_at IS NOT NULL AS closed
FROM memories WHERE space_id = %(space_id)s AND id = ANY(%(ids)s) ORDER BY ordinal
"""


def read(connection: Connection, space_id: int, ids: Sequence[str]) -> list[IndexState]:
    """How these memories stand, as far as the space has them."""
    return [IndexState(**row) for row in fetch_all(connection, STANDING, {"space_id": space_id, "ids": list(ids)})]


SET_TERMS = """
UPDATE memories SET terms = new.terms, asks = new.asks
FROM jsonb_to_recordset(%(rows)s) AS new (ordinal int, terms text[], asks boolean)
WHERE space_id = %(space_id)s AND memories.ordinal = new.ordinal
"""


def set_terms(connection: Connection, space_id: int, rows: Mapping[int, tuple[Sequence[str], bool]]) -> None:
    """Note under which terms memories are indexed now, and whether they ask, by ordinal."""
    told = [{"ordinal": ordinal, "terms": list(terms), "asks": asks} for ordinal, (terms, asks) in rows.items()]
    if told:
        connection.execute(SET_TERMS, {"space_id": space_id, "rows": Jsonb(told)})


CLOSE = """
UPDATE memories SET closed_at = now(), closed_by = %(by)s, terms = '{}', updated_at = now()
WHERE space_id = %(space_id)s AND id = ANY(%(ids)s) AND closed_at IS NULL
"""


def close(connection: Connection, space_id: int, ids: Sequence[str], by: str | None = None) -> None:
    """Mark memories as closed; the indexes are the caller's to change."""
    connection.execute(CLOSE, {"space_id": space_id, "ids": list(ids), "by": by})


# What said it is gone: that it was there is all that stays.
EMPTY = """
UPDATE memories SET text = '', metadata = '{}', speaker = '' WHERE space_id = %(space_id)s AND id = ANY(%(ids)s)
"""


def erase_text(connection: Connection, space_id: int, ids: Sequence[str]) -> None:
    """Take the words of closed memories away."""
    connection.execute(EMPTY, {"space_id": space_id, "ids": list(ids)})


REOPEN = """
UPDATE memories SET closed_at = NULL, closed_by = NULL, updated_at = now()
WHERE space_id = %(space_id)s AND id = ANY(%(ids)s)
"""


def reopen(connection: Connection, space_id: int, ids: Sequence[str]) -> None:
    """Take the mark away; the indexes are the caller's to change."""
    connection.execute(REOPEN, {"space_id": space_id, "ids": list(ids)})

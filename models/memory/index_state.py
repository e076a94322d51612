"""The columns of memories that the indexes depend on: terms, and whether a memory is closed. For holders of the lock.

A closed memory has no terms: it can be read, but recall ignores it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from models.platform.database import Connection, fetch_all


@dataclass(frozen=True, slots=True)
class IndexState:
    """The index columns of a memory."""

    id: str
    ordinal: int
    text: str
    speaker: str
    terms: list[str]
    closed: bool


READ = """
SELECT id, ordinal, text, speaker, terms, closed_at IS NOT NULL AS closed
FROM memories WHERE space_id = %(space_id)s AND id = ANY(%(ids)s) ORDER BY ordinal
"""


def read(connection: Connection, space_id: int, ids: Sequence[str]) -> list[IndexState]:
    """Return the index state of those of the memories that the space has."""
    return [IndexState(**row) for row in fetch_all(connection, READ, {"space_id": space_id, "ids": list(ids)})]


READ_RANGE = """
SELECT id, ordinal, text, speaker, terms, closed_at IS NOT NULL AS closed
FROM memories WHERE space_id = %(space_id)s AND ordinal >= %(first)s AND ordinal < %(end)s ORDER BY ordinal
"""


def read_range(connection: Connection, space_id: int, first: int, end: int) -> list[IndexState]:
    """Return the index state of the memories with ordinals from `first` to before `end`."""
    parameters = {"space_id": space_id, "first": first, "end": end}
    return [IndexState(**row) for row in fetch_all(connection, READ_RANGE, parameters)]


SET_TERMS = """
UPDATE memories SET terms = new.terms, asks = new.asks
FROM jsonb_to_recordset(%(rows)s) AS new (ordinal int, terms text[], asks boolean)
WHERE space_id = %(space_id)s AND memories.ordinal = new.ordinal
"""


def set_terms(connection: Connection, space_id: int, rows: Mapping[int, tuple[Sequence[str], bool]]) -> None:
    """Store the index terms of memories, and whether they are only questions, by ordinal."""
    values = [{"ordinal": ordinal, "terms": list(terms), "asks": asks} for ordinal, (terms, asks) in rows.items()]
    if values:
        connection.execute(SET_TERMS, {"space_id": space_id, "rows": Jsonb(values)})


CLOSE = """
UPDATE memories SET closed_at = now(), closed_by = %(by)s, terms = '{}', updated_at = now()
WHERE space_id = %(space_id)s AND id = ANY(%(ids)s) AND closed_at IS NULL
"""


def close(connection: Connection, space_id: int, ids: Sequence[str], by: str | None = None) -> None:
    """Close memories. The caller updates the indexes."""
    connection.execute(CLOSE, {"space_id": space_id, "ids": list(ids), "by": by})


# The row stays, without what was said.
ERASE_TEXT = """
UPDATE memories SET text = '', metadata = '{}', speaker = '' WHERE space_id = %(space_id)s AND id = ANY(%(ids)s)
"""


def erase_text(connection: Connection, space_id: int, ids: Sequence[str]) -> None:
    """Erase the text of closed memories."""
    connection.execute(ERASE_TEXT, {"space_id": space_id, "ids": list(ids)})


REOPEN = """
UPDATE memories SET closed_at = NULL, closed_by = NULL, updated_at = now()
WHERE space_id = %(space_id)s AND id = ANY(%(ids)s)
"""


def reopen(connection: Connection, space_id: int, ids: Sequence[str]) -> None:
    """Reopen closed memories. The caller updates the indexes."""
    connection.execute(REOPEN, {"space_id": space_id, "ids": list(ids)})

"""The sources of memories: facts and insights cite theirs, answers cite the memories recalled for them."""

from collections.abc import Sequence

from models.memory.memories import NewMemory
from models.platform.database import Connection, fetch_all

CITE = """
INSERT INTO memory_sources (memory_id, source_id)
SELECT cited.memory_id, memories.id
FROM unnest(%(memory_ids)s::text[], %(source_ids)s::text[]) AS cited (memory_id, source_id)
JOIN memories ON memories.id = cited.source_id AND memories.space_id = %(space_id)s
ON CONFLICT DO NOTHING
"""


def cite(connection: Connection, space_id: int, new_memories: Sequence[NewMemory]) -> None:
    """Insert the citations of new memories, as far as the sources are in their space."""
    if cited := [(new.id, source) for new in new_memories for source in new.sources]:
        ids, sources = zip(*cited, strict=True)
        connection.execute(CITE, {"space_id": space_id, "memory_ids": list(ids), "source_ids": list(sources)})


MISSING = """
SELECT wanted.id FROM unnest(%(ids)s::text[]) AS wanted (id)
WHERE NOT EXISTS (SELECT FROM memories WHERE memories.id = wanted.id AND space_id = %(space_id)s)
"""


def missing_ids(connection: Connection, space_id: int, ids: Sequence[str]) -> set[str]:
    """Return those of the ids that the space lacks."""
    return (
        {row["id"] for row in fetch_all(connection, MISSING, {"space_id": space_id, "ids": list(ids)})}
        if ids
        else set()
    )


SOURCES = """
SELECT source_id FROM memory_sources JOIN memories ON memories.id = memory_id
WHERE memory_id = %(id)s AND account_id = %(account_id)s ORDER BY source_id
"""


def list_sources(connection: Connection, memory_id: str, account_id: str) -> list[str]:
    """Return the ids of the sources of a memory of the account."""
    return [row["source_id"] for row in fetch_all(connection, SOURCES, {"id": memory_id, "account_id": account_id})]


# Memories with no other sources than these, and answers with any of these as a source: it is not known which of its
# sources an answer repeats.
DERIVED = """
SELECT DISTINCT memory_id FROM memory_sources AS citing
JOIN memories ON memories.id = memory_id
WHERE source_id = ANY(%(ids)s) AND space_id = %(space_id)s AND NOT memory_id = ANY(%(ids)s)
  AND (kind = 'episode'
       OR NOT EXISTS (SELECT FROM memory_sources AS other
                      WHERE other.memory_id = citing.memory_id AND NOT other.source_id = ANY(%(ids)s)))
"""


def derived_from(connection: Connection, space_id: int, ids: Sequence[str]) -> list[str]:
    """Return the ids of the memories that must be deleted with these: their dependants, transitively."""
    deleted_ids, derived = list(ids), list[str]()
    while True:
        rows = fetch_all(connection, DERIVED, {"space_id": space_id, "ids": deleted_ids})
        if not rows:
            return derived
        derived += [row["memory_id"] for row in rows]
        deleted_ids += [row["memory_id"] for row in rows]

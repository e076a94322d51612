"""What memories follow from: facts and insights cite their sources, answers what was recalled for them."""

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


def cite(connection: Connection, space_id: int, news: Sequence[NewMemory]) -> None:
    """Note what new memories follow from, as far as their space has it."""
    if cited := [(new.id, source) for new in news for source in new.sources]:
        ids, sources = zip(*cited, strict=True)
        connection.execute(CITE, {"space_id": space_id, "memory_ids": list(ids), "source_ids": list(sources)})


MISSING = """
SELECT asked.id FROM unnest(%(ids)s::text[]) AS asked (id)
WHERE NOT EXISTS (SELECT FROM memories WHERE memories.id = asked.id AND space_id = %(space_id)s)
"""


def missing_ids(connection: Connection, space_id: int, ids: Sequence[str]) -> set[str]:
    """Which of these the space has no more."""
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
    """What a memory of the account follows from."""
    return [row["source_id"] for row in fetch_all(connection, SOURCES, {"id": memory_id, "account_id": account_id})]


# What follows from these alone, and from what follows from them alone. An answer goes with any memory that it was given
# by: which of them it repeats nobody can tell.
DERIVED = """
SELECT DISTINCT memory_id FROM memory_sources AS citing
JOIN memories ON memories.id = memory_id
WHERE source_id = ANY(%(ids)s) AND space_id = %(space_id)s AND NOT memory_id = ANY(%(ids)s)
  AND (kind = 'episode'
       OR NOT EXISTS (SELECT FROM memory_sources AS other
                      WHERE other.memory_id = citing.memory_id AND NOT other.source_id = ANY(%(ids)s)))
"""


def derived_from(connection: Connection, space_id: int, ids: Sequence[str]) -> list[str]:
    """The ids of what goes with these memories: what follows from nothing else, and answers, at any remove."""
    gone, found = list(ids), list[str]()
    while True:
        rows = fetch_all(connection, DERIVED, {"space_id": space_id, "ids": gone})
        if not rows:
            return found
        found += [row["memory_id"] for row in rows]
        gone += [row["memory_id"] for row in rows]

"""Memories: what was said (episodes), what follows from it (facts), and the conclusions of meditations (insights).

A memory is indexed by its terms (`postings`) and by its meaning (`vectors`). Writers of these indexes hold the lock of
the space (`spaces`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.memory.spaces import ID_OF_KEY, Space, SpaceKey
from models.platform.database import Connection, fetch_all, fetch_one

MemoryKind = Literal["episode", "fact", "insight"]


@dataclass(frozen=True, slots=True)
class NewMemory:
    """A memory to write. Nothing is written if its space has one with this `unique_key` or id.

    sources  ids of the memories that it is derived from
    """

    id: str
    text: str
    speaker: str
    occurred_at: datetime
    conversation_id: str | None = None
    response_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    kind: MemoryKind = "episode"
    importance: float = 0.5
    unique_key: str | None = None
    valid_from: datetime | None = None
    sources: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """A row of `memories`.

    ordinal      its number in the space
    recalled     how often recall has used it; `recalled_at` is the last time
    closed_at    when it was replaced, or its sources were deleted: recall ignores it
    """

    id: str
    account_id: str
    user_id: str
    space_id: int
    ordinal: int
    kind: MemoryKind
    text: str
    speaker: str
    occurred_at: datetime
    conversation_id: str | None
    response_id: str | None
    metadata: dict[str, Any]
    importance: float
    recalled: int
    recalled_at: datetime | None
    valid_from: datetime | None
    closed_at: datetime | None
    closed_by: str | None
    created_at: datetime
    updated_at: datetime


COLUMNS = """
memories.id, memories.account_id, memories.user_id, memories.space_id, memories.ordinal, memories.kind, memories.text,
memories.speaker, memories.occurred_at, memories.conversation_id, memories.response_id, memories.metadata,
memories.importance, memories.recalled, memories.recalled_at, memories.valid_from, memories.closed_at,
memories.closed_by, memories.created_at, memories.updated_at
"""

SELECT = "SELECT " + COLUMNS + " FROM memories "

READ = SELECT + f"WHERE id = %(id)s AND space_id = {ID_OF_KEY}"


def read(connection: Connection, memory_id: str, key: SpaceKey) -> Memory | None:
    """Return the memory if it is in the space."""
    row = fetch_one(connection, READ, {"id": memory_id, **key.parameters})
    return Memory(**row) if row else None


READ_MANY = SELECT + f"WHERE id = ANY(%(ids)s) AND space_id = {ID_OF_KEY}"


def read_many(connection: Connection, ids: Sequence[str], key: SpaceKey) -> list[Memory]:
    """Return the memories of the space with these ids, in the order of the ids."""
    rows = fetch_all(connection, READ_MANY, {"ids": list(ids), **key.parameters})
    memories = {row["id"]: Memory(**row) for row in rows}
    return [memories[memory_id] for memory_id in ids if memory_id in memories]


READ_BY_ORDINAL = SELECT + "WHERE space_id = %(space_id)s AND ordinal = ANY(%(ordinals)s) AND closed_at IS NULL"


def read_by_ordinal(connection: Connection, space_id: int, ordinals: Sequence[int]) -> list[Memory]:
    """Return the memories with these ordinals that are not closed."""
    rows = fetch_all(connection, READ_BY_ORDINAL, {"space_id": space_id, "ordinals": list(ordinals)})
    return [Memory(**row) for row in rows]


# The conditions of `Filters`.
FILTER_CONDITIONS = """
  AND (%(kind)s::text IS NULL OR kind = %(kind)s)
  AND (%(speaker)s::text IS NULL OR speaker = %(speaker)s)
  AND (%(conversation_id)s::text IS NULL OR conversation_id = %(conversation_id)s)
  AND (%(after)s::timestamptz IS NULL OR occurred_at >= %(after)s)
  AND (%(before)s::timestamptz IS NULL OR occurred_at < %(before)s)
  AND (%(metadata)s::jsonb IS NULL OR metadata @> %(metadata)s)
"""

LIST = (
    SELECT
    + f"""
WHERE space_id = {ID_OF_KEY}
  AND (%(cursor)s::text IS NULL OR id < %(cursor)s)
  AND (%(closed)s OR closed_at IS NULL)
"""
    + FILTER_CONDITIONS
    + "ORDER BY id DESC LIMIT %(limit)s"
)


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions on memories; None accepts all. `after` is inclusive, `before` exclusive; `metadata` is contained."""

    kind: MemoryKind | None = None
    speaker: str | None = None
    conversation_id: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    metadata: Mapping[str, Any] | None = None

    @property
    def any(self) -> bool:
        """Whether any condition is set."""
        return self != Filters()

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of statements with FILTER_CONDITIONS."""
        return {
            "kind": self.kind,
            "speaker": self.speaker,
            "conversation_id": self.conversation_id,
            "after": self.after,
            "before": self.before,
            "metadata": None if self.metadata is None else Jsonb(dict(self.metadata)),
        }


def page(
    connection: Connection,
    key: SpaceKey,
    filters: Filters,
    *,
    cursor: str | None = None,
    closed: bool = False,
    limit: int = 20,
) -> list[Memory]:
    """Return at most `limit` memories, newest first, with ids below `cursor`; closed ones only if `closed`."""
    scope = {**key.parameters, "cursor": cursor, "closed": closed, "limit": limit}
    return [Memory(**row) for row in fetch_all(connection, LIST, {**filters.parameters(), **scope})]


# The 12 digits of an id that are the time of its creation. A memory is as old as its turn, however late it is written.
# One whose text was erased with its sources belongs to them.
UNTIL = """
SELECT id FROM memories
WHERE space_id = %(space_id)s AND (%(conversation_id)s::text IS NULL OR conversation_id = %(conversation_id)s)
  AND (left(right(coalesce(response_id, id), 32), 12) <= left(right(%(request_id)s, 32), 12)
       OR closed_at IS NOT NULL AND text = '')
ORDER BY occurred_at, ordinal LIMIT %(limit)s
"""


def ids_until(
    connection: Connection, space_id: int, conversation_id: str | None, request_id: str, limit: int
) -> list[str]:
    """Return at most `limit` ids of a conversation's memories, or of a space's, that are not newer than a request.

    request_id  an id that the request has created, which has its time
    """
    parameters = {"space_id": space_id, "conversation_id": conversation_id, "request_id": request_id, "limit": limit}
    return [row["id"] for row in fetch_all(connection, UNTIL, parameters)]


OF_TURN = """
SELECT id FROM memories
WHERE space_id = %(space_id)s AND conversation_id = %(conversation_id)s AND response_id = %(response_id)s
"""


def ids_of_turn(connection: Connection, space_id: int, conversation_id: str, response_id: str) -> list[str]:
    """Return the ids of the memories of a turn."""
    parameters = {"space_id": space_id, "conversation_id": conversation_id, "response_id": response_id}
    return [row["id"] for row in fetch_all(connection, OF_TURN, parameters)]


EXISTING = """
SELECT id, unique_key FROM memories WHERE space_id = %(space_id)s AND unique_key = ANY(%(keys)s)
UNION ALL
SELECT id, unique_key FROM memories WHERE id = ANY(%(ids)s)
"""


def existing_ids(connection: Connection, space_id: int, new_memories: Sequence[NewMemory]) -> dict[str, str]:
    """Map the ids and unique keys of new memories to the ids of existing memories."""
    keys = [new.unique_key for new in new_memories if new.unique_key]
    rows = fetch_all(
        connection, EXISTING, {"space_id": space_id, "keys": keys, "ids": [new.id for new in new_memories]}
    )
    existing = {row["id"]: row["id"] for row in rows}
    return existing | {row["unique_key"]: row["id"] for row in rows if row["unique_key"]}


INSERT = """
INSERT INTO memories (id, account_id, user_id, space_id, ordinal, kind, text, speaker, occurred_at, conversation_id,
                      response_id, metadata, importance, unique_key, valid_from, terms, asks)
SELECT id, %(account_id)s, %(user_id)s, %(space_id)s, ordinal, kind, text, speaker, occurred_at, conversation_id,
       response_id, metadata, importance, unique_key, valid_from, terms, asks
FROM jsonb_to_recordset(%(rows)s) AS new (
    id text, ordinal int, kind text, text text, speaker text, occurred_at timestamptz, conversation_id text,
    response_id text, metadata jsonb, importance real, unique_key text, valid_from timestamptz, terms text[],
    asks boolean)
"""


def insert(connection: Connection, space: Space, rows: Sequence[tuple[NewMemory, int, Sequence[str], bool]]) -> None:
    """Insert memories, each with its ordinal, its index terms, and whether it is only a question."""
    owner = {"account_id": space.account_id, "user_id": space.user_id, "space_id": space.id}
    connection.execute(INSERT, {**owner, "rows": Jsonb([_insert_row(*row) for row in rows])})


def _insert_row(new: NewMemory, ordinal: int, terms: Sequence[str], asks: bool) -> dict[str, Any]:
    return {
        "id": new.id,
        "ordinal": ordinal,
        "kind": new.kind,
        "text": new.text,
        "speaker": new.speaker,
        "occurred_at": new.occurred_at,
        "conversation_id": new.conversation_id,
        "response_id": new.response_id,
        "metadata": new.metadata,
        "importance": new.importance,
        "unique_key": new.unique_key,
        "valid_from": new.valid_from,
        "terms": list(terms),
        "asks": asks,
    }


@dataclass(frozen=True, slots=True)
class MemoryUpdate:
    """New values of a memory; None keeps the present one."""

    text: str | None = None
    speaker: str | None = None
    occurred_at: datetime | None = None
    conversation_id: str | None = None
    metadata: Mapping[str, Any] | None = None
    importance: float | None = None

    @property
    def touches_indexes(self) -> bool:
        """Whether the indexes must change too."""
        return any(value is not None for value in (self.text, self.speaker, self.occurred_at, self.conversation_id))


UPDATE = (
    """
UPDATE memories SET
    text = coalesce(%(text)s, text),
    speaker = coalesce(%(speaker)s, speaker),
    occurred_at = coalesce(%(occurred_at)s, occurred_at),
    conversation_id = coalesce(%(conversation_id)s, conversation_id),
    metadata = coalesce(%(metadata)s, metadata),
    importance = coalesce(%(importance)s, importance),
    updated_at = now()
WHERE id = %(id)s AND space_id = %(space_id)s
RETURNING """
    + COLUMNS
)


def update(connection: Connection, memory_id: str, space_id: int, change: MemoryUpdate) -> Memory | None:
    """Update a memory of the space and return it. The caller updates the indexes."""
    values = {
        "text": change.text,
        "speaker": change.speaker,
        "occurred_at": change.occurred_at,
        "conversation_id": change.conversation_id,
        "metadata": None if change.metadata is None else Jsonb(dict(change.metadata)),
        "importance": change.importance,
    }
    row = fetch_one(connection, UPDATE, {**values, "id": memory_id, "space_id": space_id})
    return Memory(**row) if row else None


DELETE = "DELETE FROM memories WHERE space_id = %(space_id)s AND id = ANY(%(ids)s)"


def delete(connection: Connection, space_id: int, ids: Sequence[str]) -> None:
    """Delete memories with their vectors and citations. The caller updates the postings."""
    connection.execute(DELETE, {"space_id": space_id, "ids": list(ids)})

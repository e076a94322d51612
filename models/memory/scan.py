"""Read all live memories of a space in batches, for meditation."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.memory.memories import MemoryKind
from models.memory.spaces import ID_OF_KEY, SpaceKey
from models.platform.database import Connection, fetch_all

#: Most memories that are read, the newest ones: 100,000 take some 250 MB.
MAX_MEMORIES = 100_000

#: Rows per batch.
BATCH = 2000


@dataclass(frozen=True, slots=True)
class ScannedMemory:
    """A live memory with the columns that meditation uses. `sources` are those of a fact or an insight.

    weighed  the importance that the last meditation set; None if none has
    """

    id: str
    ordinal: int
    kind: MemoryKind
    text: str
    speaker: str
    occurred_at: datetime
    conversation_id: str | None
    metadata: dict[str, Any]
    importance: float
    recalled: int
    recalled_at: datetime | None
    valid_from: datetime | None
    created_at: datetime
    updated_at: datetime
    sources: Sequence[str]
    weighed: float | None = None


# Newest first. In binary format a vector arrives as half-precision numbers.
PAGE = """
SELECT memories.id, memories.ordinal, kind, text, speaker, occurred_at, conversation_id, metadata, importance, recalled,
       recalled_at, valid_from, created_at, updated_at, embedding,
       CASE kind WHEN 'episode' THEN '{}'::text[]
            ELSE ARRAY(SELECT source_id FROM memory_sources WHERE memory_id = memories.id ORDER BY source_id) END
           AS sources,
       (SELECT (after ->> 'importance')::real FROM meditation_changes
        WHERE memory_id = memories.id AND action = 'weighed' AND reverted IS NOT TRUE
        ORDER BY meditation_id DESC LIMIT 1) AS weighed
FROM memories JOIN memory_vectors USING (space_id, ordinal)
WHERE space_id = %(space_id)s AND live AND closed_at IS NULL AND ordinal < %(below)s
ORDER BY ordinal DESC LIMIT %(limit)s
"""


def batches(connection: Connection, space_id: int) -> Iterator[tuple[list[ScannedMemory], NDArray[np.float16]]]:
    """Read live memories and their vectors, one per row, newest first, at most MAX_MEMORIES."""
    below, remaining = 2**31 - 1, MAX_MEMORIES
    while remaining > 0:
        parameters = {"space_id": space_id, "below": below, "limit": min(BATCH, remaining)}
        with connection.cursor(binary=True) as cursor:
            rows = cursor.execute(PAGE, parameters).fetchall()
        if not rows:
            return
        vectors = np.stack([_parse_halfvec(row.pop("embedding")) for row in rows])
        yield [ScannedMemory(**row) for row in rows], vectors
        below, remaining = rows[-1]["ordinal"], remaining - len(rows)


def _parse_halfvec(data: bytes) -> NDArray[np.float16]:
    """Parse pgvector's binary halfvec: number of dimensions, two unused bytes, the numbers in network order."""
    return np.frombuffer(data, dtype=">f2", offset=4).astype(np.float16)


TEXTS = f"""
SELECT id, text, speaker, occurred_at FROM memories
WHERE id = ANY(%(ids)s) AND space_id = {ID_OF_KEY} AND closed_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class MemoryText:
    """The text of a memory and its context."""

    id: str
    text: str
    speaker: str
    occurred_at: datetime


def read_texts(connection: Connection, ids: Sequence[str], key: SpaceKey) -> list[MemoryText]:
    """Return the texts of those of the memories that are live and in the space, oldest first."""
    rows = fetch_all(connection, TEXTS, {"ids": list(ids), **key.parameters})
    return sorted((MemoryText(**row) for row in rows), key=lambda text: (text.occurred_at, text.id))


def digest_texts(memories: Iterable[ScannedMemory | MemoryText]) -> str:
    """Return a digest that shows whether the texts have changed since a language model read them."""
    return sha256("\0".join(sorted(memory.text for memory in memories)).encode()).hexdigest()

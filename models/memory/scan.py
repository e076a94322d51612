"""All live memories of a space at once, for who thinks them over: in batches, so that no result is larger than one."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.memory.memories import MemoryKind
from models.platform.database import Connection, fetch_all

#: Memories that are looked at, the latest: 100,000 take some 250 MB while they are.
MAX_MEMORIES = 100_000

#: Rows of a batch.
BATCH = 2000


@dataclass(frozen=True, slots=True)
class ScannedMemory:
    """A live memory, as far as it is thought about. `sources` are what a fact or an insight follows from.

    weighed  the importance that the last meditation gave it; None where none has
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


# From the youngest down. Binary: a vector comes as its halves.
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
    """Live memories with a vector each, one a row; the youngest first, at most MOST."""
    below, left = 2**31 - 1, MAX_MEMORIES
    while left > 0:
        given = {"space_id": space_id, "below": below, "limit": min(BATCH, left)}
        with connection.cursor(binary=True) as cursor:
            rows = cursor.execute(PAGE, given).fetchall()
        if not rows:
            return
        vectors = np.stack([_halves(row.pop("embedding")) for row in rows])
        yield [ScannedMemory(**row) for row in rows], vectors
        below, left = rows[-1]["ordinal"], left - len(rows)


def _halves(sent: bytes) -> NDArray[np.float16]:
    """A halfvec as pgvector sends it: the number of dimensions, two bytes unused, the halves in network order."""
    return np.frombuffer(sent, dtype=">f2", offset=4).astype(np.float16)


TEXTS = """
SELECT id, text, speaker, occurred_at FROM memories
WHERE account_id = %(account_id)s AND user_id = %(user_id)s AND id = ANY(%(ids)s) AND closed_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class MemoryText:
    """What a memory says."""

    id: str
    text: str
    speaker: str
    occurred_at: datetime


def read_texts(connection: Connection, ids: Sequence[str], account_id: str, user_id: str) -> list[MemoryText]:
    """What those of these memories say that are live and the user's, the oldest first."""
    rows = fetch_all(connection, TEXTS, {"ids": list(ids), "account_id": account_id, "user_id": user_id})
    return sorted((MemoryText(**row) for row in rows), key=lambda said: (said.occurred_at, said.id))


def digest_texts(told: Iterable[ScannedMemory | MemoryText]) -> str:
    """What proves that these say the same as when a language model was told them."""
    return sha256("\0".join(sorted(memory.text for memory in told)).encode()).hexdigest()

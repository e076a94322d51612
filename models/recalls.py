"""What a recall reads of a space, in few statements, and what it leaves behind: how often a memory was of use."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.database import Connection, all_of, one
from models.memories import PASSES, Filters
from models.memory_vectors import Vector, written

Ordinals = NDArray[np.int64]

# Whether they are live the indexes know.
MATCHING = (
    """
SELECT array_agg(ordinal) AS ordinals FROM memories WHERE space_id = %(space_id)s"""
    + PASSES
)


def matching(connection: Connection, space_id: int, filters: Filters) -> Ordinals:
    """The ordinals that the filters leave."""
    parameters = {"space_id": space_id, **filters.parameters()}
    row = connection.execute(MATCHING, parameters, binary=True, prepare=False).fetchone()
    return np.array((row and row["ordinals"]) or [], dtype=np.int64)


# One more on each side than is looked at: so it is known who stands next to each of these, or that nobody does. What
# people say in no conversation is taken for one; notes that nobody says have no neighbours.
AROUND = """
SELECT ordinal,
       ARRAY(SELECT near.ordinal FROM memories AS near
             WHERE near.space_id = %(space_id)s AND coalesce(near.conversation_id, '') = coalesce(memories.conversation_id, '')
               AND (near.occurred_at, near.ordinal) < (memories.occurred_at, memories.ordinal)
               AND near.kind = 'episode' AND near.closed_at IS NULL
               AND (near.conversation_id IS NOT NULL OR near.speaker <> '')
             ORDER BY near.occurred_at DESC, near.ordinal DESC LIMIT %(reach)s) AS before,
       ARRAY(SELECT near.ordinal FROM memories AS near
             WHERE near.space_id = %(space_id)s AND coalesce(near.conversation_id, '') = coalesce(memories.conversation_id, '')
               AND (near.occurred_at, near.ordinal) > (memories.occurred_at, memories.ordinal)
               AND near.kind = 'episode' AND near.closed_at IS NULL
               AND (near.conversation_id IS NOT NULL OR near.speaker <> '')
             ORDER BY near.occurred_at, near.ordinal LIMIT %(reach)s) AS after
FROM memories
WHERE space_id = %(space_id)s AND ordinal = ANY(%(ordinals)s) AND kind = 'episode'
  AND (conversation_id IS NOT NULL OR speaker <> '')
"""


@dataclass(slots=True)
class Neighbours:
    """Who was said next to whom, by ordinal, in the conversations around some memories."""

    previous: dict[int, int]
    following: dict[int, int]

    def around(self, ordinals: Iterable[int], reach: int) -> set[int]:
        """These, and those at most `reach` before and behind each."""
        found = set(ordinals)
        for side in (self.previous, self.following):
            edge = set(ordinals)
            for _ in range(reach):
                edge = {side[ordinal] for ordinal in edge if ordinal in side}
                found |= edge
        return found


def neighbours(connection: Connection, space_id: int, ordinals: Sequence[int], reach: int) -> Neighbours:
    """The neighbours of these memories, `reach` of them and one more on each side."""
    found = Neighbours({}, {})
    parameters = {"space_id": space_id, "ordinals": list(ordinals), "reach": reach + 1}
    for row in all_of(connection, AROUND, parameters):
        for earlier, later in pairwise([*reversed(row["before"]), row["ordinal"], *row["after"]]):
            found.previous[later], found.following[earlier] = earlier, later
    return found


@dataclass(frozen=True, slots=True)
class Seen:
    """A memory as recall weighs it: `words` are its different terms, `dense` the cosine with the question."""

    id: str
    ordinal: int
    speaker: str
    occurred_at: datetime
    asks: bool
    words: int
    importance: float
    dense: float


SEEN = """
SELECT id, ordinal, speaker, occurred_at, asks, cardinality(terms) AS words, importance,
       1 - (embedding <=> %(vector)s::halfvec) AS dense
FROM memories JOIN memory_vectors USING (space_id, ordinal)
WHERE space_id = %(space_id)s AND ordinal = ANY(%(ordinals)s) AND live
"""


def seen(connection: Connection, space_id: int, ordinals: Sequence[int], vector: Vector) -> list[Seen]:
    """These memories, as far as they are live."""
    parameters = {"space_id": space_id, "ordinals": list(ordinals), "vector": written(vector)}
    return [Seen(**row) for row in all_of(connection, SEEN, parameters)]


# In the order of the key, past what a writer holds: a count that is missed matters less than waiting.
NOTE_RECALLED = """
WITH used AS (
    SELECT id AS used_id, times FROM memories
    JOIN unnest(%(ids)s::text[], %(counts)s::int[]) AS counted (counted_id, times) ON id = counted_id
    ORDER BY id FOR NO KEY UPDATE OF memories SKIP LOCKED
)
UPDATE memories SET recalled = recalled + times, recalled_at = now() FROM used WHERE id = used_id
"""


def note_recalled(connection: Connection, counts: Mapping[str, int]) -> None:
    """Count uses of memories: id → how many more."""
    connection.execute(NOTE_RECALLED, {"ids": list(counts), "counts": list(counts.values())})


# An ended job goes as it is read, with its journal.
TAKE = """
DELETE FROM jobs WHERE id = %(id)s AND account_id = %(account_id)s AND kind = 'memory.search' AND state = 'completed'
RETURNING result
"""


def take(connection: Connection, job_id: str, account_id: str) -> list[dict[str, Any]] | None:
    """The hits of a completed search, which is gone from here on; None where there is none."""
    row = one(connection, TAKE, {"id": job_id, "account_id": account_id})
    return row["result"]["hits"] if row else None

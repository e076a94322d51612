"""The statements of a recall, and the counting of its results."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.memory.memories import FILTER_CONDITIONS, Filters
from models.memory.postings import Postings, unpack
from models.memory.vectors import Vector, format_ordinals, format_vector
from models.platform.database import Connection, fetch_one

Ordinals = NDArray[np.int64]

# Closed memories are included: the indexes exclude them.
MATCHING = (
    """
SELECT array_agg(ordinal) AS ordinals FROM memories WHERE space_id = %(space_id)s"""
    + FILTER_CONDITIONS
)


def matching_ordinals(connection: Connection, space_id: int, filters: Filters) -> Ordinals:
    """Return the ordinals of the memories that pass the filters."""
    parameters = {"space_id": space_id, **filters.parameters()}
    row = connection.execute(MATCHING, parameters, binary=True, prepare=False).fetchone()
    return np.array((row and row["ordinals"]) or [], dtype=np.int64)


# One neighbour more than `reach` on each side, so that it is known whether the outermost ones have neighbours. Episodes
# without a conversation form one, except those of turns; notes without a speaker have no neighbours.
NEIGHBOURS = """
SELECT ordinal,
       ARRAY(SELECT near.ordinal FROM memories AS near
             WHERE near.space_id = %(space_id)s
               AND coalesce(near.conversation_id, '') = coalesce(memories.conversation_id, '')
               AND (near.occurred_at, near.ordinal) < (memories.occurred_at, memories.ordinal)
               AND near.kind = 'episode' AND near.closed_at IS NULL
               AND (near.conversation_id IS NOT NULL OR near.speaker <> '' AND near.response_id IS NULL)
             ORDER BY near.occurred_at DESC, near.ordinal DESC LIMIT %(reach)s) AS before,
       ARRAY(SELECT near.ordinal FROM memories AS near
             WHERE near.space_id = %(space_id)s
               AND coalesce(near.conversation_id, '') = coalesce(memories.conversation_id, '')
               AND (near.occurred_at, near.ordinal) > (memories.occurred_at, memories.ordinal)
               AND near.kind = 'episode' AND near.closed_at IS NULL
               AND (near.conversation_id IS NOT NULL OR near.speaker <> '' AND near.response_id IS NULL)
             ORDER BY near.occurred_at, near.ordinal LIMIT %(reach)s) AS after
FROM memories
WHERE space_id = %(space_id)s AND ordinal = ANY(%(ordinals)s::int[]) AND kind = 'episode'
  AND (conversation_id IS NOT NULL OR speaker <> '' AND response_id IS NULL)
"""


@dataclass(slots=True)
class Neighbours:
    """The previous and the next episode of each in its conversation, by ordinal."""

    previous: dict[int, int]
    following: dict[int, int]

    def around(self, ordinals: Iterable[int], reach: int) -> set[int]:
        """Return these ordinals and those at most `reach` before and after each."""
        ordinals_in_reach = set(ordinals)
        for side in (self.previous, self.following):
            edge = set(ordinals)
            for _ in range(reach):
                edge = {side[ordinal] for ordinal in edge if ordinal in side}
                ordinals_in_reach |= edge
        return ordinals_in_reach


def read_neighbours(connection: Connection, space_id: int, ordinals: Sequence[int], reach: int) -> Neighbours:
    """Return the neighbours of these memories, `reach` + 1 of them on each side."""
    result = Neighbours({}, {})
    parameters = {"space_id": space_id, "ordinals": format_ordinals(ordinals), "reach": reach + 1}
    for row in connection.execute(NEIGHBOURS, parameters, binary=True):
        for earlier, later in pairwise([*reversed(row["before"]), row["ordinal"], *row["after"]]):
            result.previous[later], result.following[earlier] = earlier, later
    return result


@dataclass(frozen=True, slots=True)
class CandidateRows:
    """The columns of memories that recall ranks by, one memory per row.

    occurred_at  seconds since 1970
    words        number of different terms
    dense        cosine similarity to the query
    """

    ids: list[str]
    ordinals: Ordinals
    speakers: list[str]
    occurred_at: NDArray[np.float64]
    asks: NDArray[np.bool_]
    words: NDArray[np.float64]
    importance: NDArray[np.float64]
    dense: NDArray[np.float64]


# Aggregated by column, since unpacking rows takes a thousand times as long. Both tables get the ordinals, so that each
# is read in the order of its index.
CANDIDATES = """
SELECT array_agg(id) AS ids, array_agg(ordinal) AS ordinals, array_agg(speaker) AS speakers,
       array_agg(extract(epoch FROM occurred_at)::float8) AS occurred_at, array_agg(asks) AS asks,
       array_agg(cardinality(terms)) AS words, array_agg(importance) AS importance,
       array_agg(1 - (embedding <=> %(vector)s::halfvec)) AS dense
FROM memories JOIN (
    SELECT ordinal, embedding FROM memory_vectors
    WHERE space_id = %(space_id)s AND ordinal = ANY(%(ordinals)s::int[]) AND live) AS vectors USING (ordinal)
WHERE space_id = %(space_id)s AND ordinal = ANY(%(ordinals)s::int[])
"""


def read_candidates(connection: Connection, space_id: int, ordinals: Sequence[int], vector: Vector) -> CandidateRows:
    """Return those of the memories that are live."""
    parameters = {"space_id": space_id, "ordinals": format_ordinals(ordinals), "vector": format_vector(vector)}
    return _candidates(connection.execute(CANDIDATES, parameters, binary=True).fetchone() or {})


def _candidates(row: Mapping[str, Any]) -> CandidateRows:
    """Build candidates from columns, which are null without rows."""
    numbers = {name: np.array(row[name] or [], dtype=float) for name in ("occurred_at", "words", "importance", "dense")}
    return CandidateRows(
        ids=row["ids"] or [],
        ordinals=np.array(row["ordinals"] or [], dtype=np.int64),
        speakers=row["speakers"] or [],
        asks=np.array(row["asks"] or [], dtype=np.bool_),
        **numbers,
    )


# Neighbours as in NEIGHBOURS, and the postings of the query's terms.
SPACE = """
SELECT terms, blocks, entries, ids, ordinals, speakers, occurred_at, asks, words, importance, dense, previous
FROM (
    SELECT array_agg(term) AS terms, array_agg(block) AS blocks, array_agg(entries) AS entries
    FROM memory_postings WHERE space_id = %(space_id)s AND term = ANY(%(terms)s)
) AS postings, (
    SELECT array_agg(id) AS ids, array_agg(ordinal) AS ordinals, array_agg(speaker) AS speakers,
           array_agg(extract(epoch FROM occurred_at)::float8) AS occurred_at, array_agg(asks) AS asks,
           array_agg(cardinality(terms)) AS words, array_agg(importance) AS importance,
           array_agg(1 - (embedding <=> %(vector)s::halfvec)) AS dense,
           array_agg(previous) AS previous
    FROM (
        SELECT memories.id, ordinal, memories.speaker, memories.occurred_at, memories.asks, memories.terms,
               memories.importance, memory_vectors.embedding,
               CASE WHEN has_neighbours THEN lag(ordinal) OVER conversation END AS previous
        FROM memories JOIN memory_vectors USING (space_id, ordinal),
            LATERAL (SELECT kind = 'episode' AND (
                conversation_id IS NOT NULL OR speaker <> '' AND response_id IS NULL) AS has_neighbours) AS form
        WHERE space_id = %(space_id)s AND live
        WINDOW conversation AS (
            PARTITION BY has_neighbours, coalesce(conversation_id, '') ORDER BY occurred_at, ordinal)
    ) AS live_memories
) AS space
"""


@dataclass(frozen=True, slots=True)
class SpaceContents:
    """All live memories of a small space, their neighbours, and the postings of the query's terms."""

    seen: CandidateRows
    around: Neighbours
    postings: dict[str, Postings]


def read_space(connection: Connection, space_id: int, vector: Vector, terms: Sequence[str]) -> SpaceContents:
    """Read a small space in one statement."""
    parameters = {"space_id": space_id, "vector": format_vector(vector), "terms": list(terms)}
    row = connection.execute(SPACE, parameters, binary=True).fetchone() or {}
    pairs = zip(row["ordinals"] or [], row["previous"] or [], strict=True)
    previous = {later: earlier for later, earlier in pairs if earlier is not None}
    around = Neighbours(previous, {earlier: later for later, earlier in previous.items()})
    postings_rows = zip(row["terms"] or [], row["blocks"] or [], row["entries"] or [], strict=True)
    return SpaceContents(_candidates(row), around, unpack(postings_rows))


# In the order of the key, skipping rows that a writer has locked: missing a count is better than waiting.
COUNT_RECALLS = """
WITH used AS (
    SELECT id AS used_id, times FROM memories
    JOIN unnest(%(ids)s::text[], %(counts)s::int[]) AS counted (counted_id, times) ON id = counted_id
    ORDER BY id FOR NO KEY UPDATE OF memories SKIP LOCKED
)
UPDATE memories SET recalled = recalled + times, recalled_at = now() FROM used WHERE id = used_id
"""


def count_recalls(connection: Connection, counts: Mapping[str, int]) -> None:
    """Add to the recall counts of memories: id → number of uses."""
    connection.execute(COUNT_RECALLS, {"ids": list(counts), "counts": list(counts.values())})


# The job and its journal are deleted with the read.
TAKE = """
DELETE FROM jobs WHERE id = %(id)s AND account_id = %(account_id)s AND kind = 'memory.search' AND state = 'completed'
RETURNING result
"""


def take_result(connection: Connection, job_id: str, account_id: str) -> list[dict[str, Any]] | None:
    """Return the hits of a completed search and delete its job; None if there is none."""
    row = fetch_one(connection, TAKE, {"id": job_id, "account_id": account_id})
    return row["result"]["hits"] if row else None

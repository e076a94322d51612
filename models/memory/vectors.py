"""The vectors of memories in half precision, and the search by meaning.

The search is exact, unless the space has an index (`vector_indexes`). The planner cannot choose between them: it uses
an index where that misses half of the nearest memories, and sorts where an index exists. So the exact search is fenced
by OFFSET 0, and the indexed one disables sorting.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.memory.memories import FILTER_CONDITIONS, Filters
from models.platform.database import Connection, fetch_all

Vector = Sequence[float]

#: Ordinals and cosine distances, the nearest first.
Matches = list[tuple[int, float]]

#: Fewest candidates that an indexed search examines.
MIN_CANDIDATES = 200

PUT = """
INSERT INTO memory_vectors (space_id, ordinal, embedding)
SELECT %(space_id)s, ordinal, embedding::halfvec
FROM unnest(%(ordinals)s::int[], %(embeddings)s::text[]) AS new (ordinal, embedding)
ON CONFLICT (space_id, ordinal) DO UPDATE SET embedding = excluded.embedding
"""


def put(connection: Connection, space_id: int, vectors: Mapping[int, Vector]) -> None:
    """Insert or replace vectors by ordinal."""
    if vectors:
        embeddings = [format_vector(vector) for vector in vectors.values()]
        connection.execute(PUT, {"space_id": space_id, "ordinals": list(vectors), "embeddings": embeddings})


SET_LIVE = """
UPDATE memory_vectors SET live = %(live)s
WHERE space_id = %(space_id)s AND ordinal = ANY(%(ordinals)s) AND live <> %(live)s
"""


def set_live(connection: Connection, space_id: int, ordinals: Sequence[int], *, live: bool) -> None:
    """Include memories in searches, or exclude them."""
    connection.execute(SET_LIVE, {"space_id": space_id, "ordinals": list(ordinals), "live": live})


DELETE = "DELETE FROM memory_vectors WHERE space_id = %(space_id)s AND ordinal = ANY(%(ordinals)s)"


def delete(connection: Connection, space_id: int, ordinals: Sequence[int]) -> None:
    """Delete the vectors of memories whose rows are kept."""
    connection.execute(DELETE, {"space_id": space_id, "ordinals": list(ordinals)})


def format_vector(vector: Vector) -> str:
    """Format a vector as a halfvec literal. Six digits exceed its precision."""
    return "[" + ",".join([f"{number:.6g}" for number in vector]) + "]"


def format_ordinals(ordinals: Iterable[int]) -> str:
    """Format ordinals as an array literal: psycopg would adapt a list element by element."""
    return "{" + ",".join([str(ordinal) for ordinal in ordinals]) + "}"


EXACT = """
SELECT ordinal, embedding <=> %(vector)s::halfvec AS distance FROM (
    SELECT ordinal, embedding FROM memory_vectors WHERE space_id = %(space_id)s AND live OFFSET 0) AS mine
ORDER BY distance, ordinal LIMIT %(limit)s
"""


def search_exact(connection: Connection, space_id: int, vector: Vector, limit: int) -> Matches:
    """Return the nearest live memories."""
    parameters = {"space_id": space_id, "vector": format_vector(vector), "limit": limit}
    return _matches(fetch_all(connection, EXACT, parameters))


AMONG = """
SELECT ordinal, embedding <=> %(vector)s::halfvec AS distance FROM (
    SELECT ordinal, embedding FROM memory_vectors
    WHERE space_id = %(space_id)s AND live AND ordinal = ANY(%(ordinals)s::int[]) OFFSET 0) AS some_of_mine
ORDER BY distance, ordinal LIMIT %(limit)s
"""


def search_among(
    connection: Connection, space_id: int, vector: Vector, ordinals: NDArray[np.int64], limit: int
) -> Matches:
    """Return the nearest of the memories with these ordinals that are live."""
    parameters = {
        "space_id": space_id,
        "vector": format_vector(vector),
        "ordinals": format_ordinals(ordinals.tolist()),
        "limit": limit,
    }
    return _matches(fetch_all(connection, AMONG, parameters))


# For this transaction. The planner must know the space's id to see that the partial index matches.
PLANNER_SETTINGS = """
SELECT set_config('hnsw.ef_search', %(candidates)s, true), set_config('hnsw.iterative_scan', 'relaxed_order', true),
       set_config('enable_sort', 'off', true), set_config('enable_seqscan', 'off', true),
       set_config('enable_bitmapscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true)
"""

BY_INDEX = """
SELECT ordinal, embedding <=> %(vector)s::halfvec AS distance FROM memory_vectors
WHERE space_id = %(space_id)s AND live
ORDER BY embedding <=> %(vector)s::halfvec LIMIT %(limit)s
"""

BY_INDEX_FILTERED = (
    """
SELECT ordinal, embedding <=> %(vector)s::halfvec AS distance
FROM memory_vectors JOIN memories USING (space_id, ordinal)
WHERE space_id = %(space_id)s AND live"""
    + FILTER_CONDITIONS
    + "ORDER BY embedding <=> %(vector)s::halfvec LIMIT %(limit)s"
)


def search_index(connection: Connection, space_id: int, vector: Vector, filters: Filters, limit: int) -> Matches:
    """Return the nearest memories that pass the filters, by the space's index, with the recall of HNSW.

    Needs a transaction of its own, since it changes planner settings.
    """
    connection.execute(PLANNER_SETTINGS, {"candidates": str(max(MIN_CANDIDATES, limit))})
    statement = BY_INDEX_FILTERED if filters.any else BY_INDEX
    parameters = {"space_id": space_id, "vector": format_vector(vector), "limit": limit, **filters.parameters()}
    rows = connection.execute(statement, parameters, prepare=False).fetchall()
    return sorted(_matches(rows), key=lambda match: (match[1], match[0]))


def _matches(rows: Sequence[Mapping[str, float]]) -> Matches:
    return [(int(row["ordinal"]), row["distance"]) for row in rows]

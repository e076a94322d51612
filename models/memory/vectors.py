"""Vectors of memories, as half-precision numbers, and the search by meaning.

It is exact, unless the space has an index of its own (`memory_indexes`). Postgres is not left to choose between the
two: it takes an index where it loses half of what is near, and sorts where an index stands. So the exact search is
fenced (OFFSET 0), and the other one is told that sorting costs too much.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.memory.memories import PASSES, Filters
from models.platform.database import Connection, fetch_all

Vector = Sequence[float]

#: Ordinal and cosine distance, the nearest first.
Matches = list[tuple[int, float]]

#: What an index looks at for a search, at least.
LOOKED_AT = 200

PUT = """
INSERT INTO memory_vectors (space_id, ordinal, embedding)
SELECT %(space_id)s, ordinal, embedding::halfvec
FROM unnest(%(ordinals)s::int[], %(embeddings)s::text[]) AS new (ordinal, embedding)
ON CONFLICT (space_id, ordinal) DO UPDATE SET embedding = excluded.embedding
"""


def put(connection: Connection, space_id: int, vectors: Mapping[int, Vector]) -> None:
    """Write vectors, by ordinal; they take the place of those that stand."""
    if vectors:
        embeddings = [format_vector(vector) for vector in vectors.values()]
        connection.execute(PUT, {"space_id": space_id, "ordinals": list(vectors), "embeddings": embeddings})


SET_LIVE = """
UPDATE memory_vectors SET live = %(live)s
WHERE space_id = %(space_id)s AND ordinal = ANY(%(ordinals)s) AND live <> %(live)s
"""


def set_live(connection: Connection, space_id: int, ordinals: Sequence[int], *, live: bool) -> None:
    """Let searches see these, or not."""
    connection.execute(SET_LIVE, {"space_id": space_id, "ordinals": list(ordinals), "live": live})


DELETE = "DELETE FROM memory_vectors WHERE space_id = %(space_id)s AND ordinal = ANY(%(ordinals)s)"


def delete(connection: Connection, space_id: int, ordinals: Sequence[int]) -> None:
    """Delete vectors of memories that stay as rows."""
    connection.execute(DELETE, {"space_id": space_id, "ordinals": list(ordinals)})


def format_vector(vector: Vector) -> str:
    """A vector as Postgres reads it; six digits are more than a halfvec holds."""
    return "[" + ",".join([f"{number:.6g}" for number in vector]) + "]"


def format_ordinals(ordinals: Iterable[int]) -> str:
    """Ordinals as Postgres reads them; of a list psycopg would look at each."""
    return "{" + ",".join([str(ordinal) for ordinal in ordinals]) + "}"


EXACT = """
SELECT ordinal, embedding <=> %(vector)s::halfvec AS distance FROM (
    SELECT ordinal, embedding FROM memory_vectors WHERE space_id = %(space_id)s AND live OFFSET 0) AS mine
ORDER BY distance, ordinal LIMIT %(limit)s
"""


def search_exact(connection: Connection, space_id: int, vector: Vector, limit: int) -> Matches:
    """The nearest of all live memories."""
    parameters = {"space_id": space_id, "vector": format_vector(vector), "limit": limit}
    return _found(fetch_all(connection, EXACT, parameters))


AMONG = """
SELECT ordinal, embedding <=> %(vector)s::halfvec AS distance FROM (
    SELECT ordinal, embedding FROM memory_vectors
    WHERE space_id = %(space_id)s AND live AND ordinal = ANY(%(ordinals)s::int[]) OFFSET 0) AS some_of_mine
ORDER BY distance, ordinal LIMIT %(limit)s
"""


def search_among(
    connection: Connection, space_id: int, vector: Vector, ordinals: NDArray[np.int64], limit: int
) -> Matches:
    """The nearest of these memories, as far as they are live."""
    parameters = {
        "space_id": space_id,
        "vector": format_vector(vector),
        "ordinals": format_ordinals(ordinals.tolist()),
        "limit": limit,
    }
    return _found(fetch_all(connection, AMONG, parameters))


# For the transaction. The space's number must be known to the planner, or it can't see that the index is this space's.
GUIDE = """
SELECT set_config('hnsw.ef_search', %(looked_at)s, true), set_config('hnsw.iterative_scan', 'relaxed_order', true),
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
    + PASSES
    + "ORDER BY embedding <=> %(vector)s::halfvec LIMIT %(limit)s"
)


def search_index(connection: Connection, space_id: int, vector: Vector, filters: Filters, limit: int) -> Matches:
    """The nearest of what the filters leave, nearly all of them, by the space's own index.

    For a transaction of its own: it changes how the rest of that is planned.
    """
    connection.execute(GUIDE, {"looked_at": str(max(LOOKED_AT, limit))})
    statement = BY_INDEX_FILTERED if filters.any else BY_INDEX
    parameters = {"space_id": space_id, "vector": format_vector(vector), "limit": limit, **filters.parameters()}
    rows = connection.execute(statement, parameters, prepare=False).fetchall()
    return sorted(_found(rows), key=lambda found: (found[1], found[0]))


def _found(rows: Sequence[Mapping[str, float]]) -> Matches:
    return [(int(row["ordinal"]), row["distance"]) for row in rows]

"""The vectors of memories in half precision, and exact search among them.

Changes of stored vectors refresh their binary codes (`vector_codes`).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.memory import vector_codes
from models.platform.database import Connection, fetch_all

Vector = Sequence[float]

#: Ordinals and cosine distances, the nearest first.
Matches = list[tuple[int, float]]

INSERT = """
INSERT INTO memory_vectors (space_id, ordinal, embedding)
SELECT %(space_id)s, ordinal, embedding::halfvec
FROM unnest(%(ordinals)s::int[], %(embeddings)s::text[]) AS new (ordinal, embedding)
ON CONFLICT (space_id, ordinal) DO UPDATE SET embedding = excluded.embedding
"""


def insert(connection: Connection, space_id: int, vectors: Mapping[int, Vector]) -> None:
    """Insert the vectors of new memories by ordinal."""
    if vectors:
        embeddings = [format_vector(vector) for vector in vectors.values()]
        connection.execute(INSERT, {"space_id": space_id, "ordinals": list(vectors), "embeddings": embeddings})


def replace(connection: Connection, space_id: int, vectors: Mapping[int, Vector]) -> None:
    """Insert or replace the vectors of existing memories by ordinal."""
    insert(connection, space_id, vectors)
    vector_codes.refresh(connection, space_id, list(vectors))


SET_LIVE = """
UPDATE memory_vectors SET live = %(live)s
WHERE space_id = %(space_id)s AND ordinal = ANY(%(ordinals)s) AND live <> %(live)s
"""


def set_live(connection: Connection, space_id: int, ordinals: Sequence[int], *, live: bool) -> None:
    """Include memories in searches, or exclude them."""
    connection.execute(SET_LIVE, {"space_id": space_id, "ordinals": list(ordinals), "live": live})
    vector_codes.refresh(connection, space_id, ordinals)


DELETE = "DELETE FROM memory_vectors WHERE space_id = %(space_id)s AND ordinal = ANY(%(ordinals)s)"


def delete(connection: Connection, space_id: int, ordinals: Sequence[int]) -> None:
    """Delete the vectors of memories whose rows are kept."""
    connection.execute(DELETE, {"space_id": space_id, "ordinals": list(ordinals)})
    vector_codes.refresh(connection, space_id, ordinals)


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


def _matches(rows: Sequence[Mapping[str, float]]) -> Matches:
    return [(int(row["ordinal"]), row["distance"]) for row in rows]

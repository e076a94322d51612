"""Passages: parts of long memories, each with terms and a vector of its own.

A passage has a number in its space. Its postings have the ordinal -1 - number, so that they are beside those of
memories and never mixed with them. Its vector is added by a job after its terms. Writers hold the space's lock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from models.memory.vectors import Vector, format_ordinals, format_vector
from models.platform.database import Connection, fetch_all

#: Passages of a space that a search compares by meaning, in some 5 ms. Of a space with more, it compares those whose
#: terms match best.
MAX_COMPARED = 5_000


@dataclass(frozen=True, slots=True)
class NewPassage:
    """A passage to write: the ordinal of its memory, its first character, its length in characters, and its terms."""

    number: int
    ordinal: int
    start: int
    length: int
    terms: Sequence[str]


Number = TypeVar("Number", int, NDArray[np.int64])


def posting_ordinal(number: Number) -> Number:
    """Return the ordinal of a passage in the postings; the same function converts it back."""
    return -1 - number


TAKE_NUMBERS = """
UPDATE memory_spaces SET next_passage = next_passage + %(count)s WHERE id = %(space_id)s
RETURNING next_passage - %(count)s AS first
"""

INSERT = """
INSERT INTO memory_passages (space_id, number, ordinal, start, length, terms)
SELECT %(space_id)s, number, ordinal, start, length, terms
FROM jsonb_to_recordset(%(rows)s) AS new (number int, ordinal int, start int, length int, terms text[])
"""


def take_numbers(connection: Connection, space_id: int, count: int) -> int:
    """Reserve numbers for new passages and return the first."""
    row = connection.execute(TAKE_NUMBERS, {"space_id": space_id, "count": count}).fetchone()
    assert row is not None
    return int(row["first"])


def insert(connection: Connection, space_id: int, passages: Sequence[NewPassage]) -> None:
    """Insert passages without vectors. The caller adds their postings."""
    rows = [
        {"number": each.number, "ordinal": each.ordinal, "start": each.start, "length": each.length,
         "terms": list(each.terms)}
        for each in passages
    ]  # fmt: skip
    connection.execute(INSERT, {"space_id": space_id, "rows": Jsonb(rows)})


DELETE = """
DELETE FROM memory_passages WHERE space_id = %(space_id)s AND ordinal = ANY(%(ordinals)s) RETURNING number, terms
"""


def delete(connection: Connection, space_id: int, ordinals: Sequence[int]) -> dict[int, list[str]]:
    """Delete the passages of memories, and return their terms by their ordinals in the postings."""
    rows = fetch_all(connection, DELETE, {"space_id": space_id, "ordinals": list(ordinals)})
    return {posting_ordinal(row["number"]): row["terms"] for row in rows}


@dataclass(frozen=True, slots=True)
class PassageRows:
    """Passages of a space, as columns: their numbers, memories' ordinals, positions, and cosines with a query.

    dense  0 for a passage without a vector
    """

    numbers: NDArray[np.int64]
    ordinals: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    dense: NDArray[np.float64]


READ = """
SELECT array_agg(number) AS numbers, array_agg(ordinal) AS ordinals, array_agg(start) AS starts,
       array_agg(length) AS lengths, array_agg(coalesce(1 - (embedding <=> %(vector)s::halfvec), 0)) AS dense
FROM memory_passages WHERE space_id = %(space_id)s AND (%(numbers)s::int[] IS NULL OR number = ANY(%(numbers)s::int[]))
"""


def read(connection: Connection, space_id: int, vector: Vector, numbers: Sequence[int] | None = None) -> PassageRows:
    """Read the passages of a space, or those with these numbers."""
    parameters = {
        "space_id": space_id,
        "vector": format_vector(vector),
        "numbers": None if numbers is None else format_ordinals(numbers),
    }
    row = connection.execute(READ, parameters, binary=True).fetchone() or {}
    integers = {
        name: np.array(row[name] or [], dtype=np.int64) for name in ("numbers", "ordinals", "starts", "lengths")
    }
    return PassageRows(**integers, dense=np.array(row["dense"] or [], dtype=np.float64))


WITHOUT_VECTOR = """
SELECT number, substring(text FROM start + 1 FOR length) AS text
FROM memory_passages JOIN memories USING (space_id, ordinal)
WHERE space_id = %(space_id)s AND embedding IS NULL ORDER BY number DESC LIMIT %(limit)s
"""


def without_vector(connection: Connection, space_id: int, limit: int) -> dict[int, str]:
    """Return the texts of passages without a vector by number, the newest first."""
    rows = fetch_all(connection, WITHOUT_VECTOR, {"space_id": space_id, "limit": limit})
    return {row["number"]: row["text"] for row in rows}


SET_VECTORS = """
UPDATE memory_passages SET embedding = new.embedding::halfvec
FROM unnest(%(numbers)s::int[], %(embeddings)s::text[]) AS new (new_number, embedding)
WHERE space_id = %(space_id)s AND number = new_number
"""


def set_vectors(connection: Connection, space_id: int, vectors: Mapping[int, Vector]) -> None:
    """Store the vectors of passages by number; a passage that was deleted meanwhile is left out."""
    embeddings = [format_vector(vector) for vector in vectors.values()]
    connection.execute(SET_VECTORS, {"space_id": space_id, "numbers": list(vectors), "embeddings": embeddings})

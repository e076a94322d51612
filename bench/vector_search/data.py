"""Generated vectors of spaces of different sizes, in a table like the platform's, in the order of time of all users."""

import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.platform.database import Connection

Vectors = NDArray[np.float32]

DIMENSIONS, TOPICS, SPREAD = 384, 500, 0.6

TABLE = """
CREATE TABLE memory_vectors (
    space_id bigint NOT NULL, ordinal integer NOT NULL, live boolean NOT NULL DEFAULT true,
    embedding halfvec(384) NOT NULL, PRIMARY KEY (space_id, ordinal));
ALTER TABLE memory_vectors ALTER COLUMN embedding SET STORAGE PLAIN;
"""

#: A row of COPY in binary format: the number of fields, then each with its length.
COPY_ROW = np.dtype([
    ("fields", ">i2"), ("length_1", ">i4"), ("space_id", ">i8"), ("length_2", ">i4"), ("ordinal", ">i4"),
    ("length_3", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), ("embedding", ">f2", DIMENSIONS),
])  # fmt: skip

COPY_HEADER, COPY_END = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0), struct.pack(">h", -1)

BATCH = 5000


class VectorGenerator:
    """Generates unit vectors around the centres of topics, the same in each run."""

    def __init__(self, seed: int = 7) -> None:
        self._random = np.random.default_rng(seed)
        self._centres = self._random.standard_normal((TOPICS, DIMENSIONS))

    def vectors(self, count: int) -> Vectors:
        """Return vectors, one per row."""
        noise = self._random.standard_normal((count, DIMENSIONS))
        vectors = self._centres[self._random.integers(TOPICS, size=count)] * (1 - SPREAD) + noise * SPREAD
        units: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return units

    def interleaved(self, sizes: Mapping[int, int]) -> NDArray[np.int64]:
        """Return the space of each row: the users' memories arrive in random order."""
        spaces = np.repeat(list(sizes), list(sizes.values()))
        self._random.shuffle(spaces)
        return spaces


def load(connection: Connection, generator: VectorGenerator, sizes: Mapping[int, int]) -> None:
    """Create the table and fill it: `sizes` has the number of memories of each space."""
    connection.execute(TABLE)
    spaces = generator.interleaved(sizes)
    ordinals = np.zeros(len(spaces), dtype=np.int64)
    for space_id, count in sizes.items():
        ordinals[spaces == space_id] = np.arange(count)
    statement = "COPY memory_vectors (space_id, ordinal, embedding) FROM STDIN (FORMAT binary)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(COPY_HEADER)
        for begin in range(0, len(spaces), BATCH):
            part = slice(begin, begin + BATCH)
            copy.write(_rows(spaces[part], ordinals[part], generator))
        copy.write(COPY_END)
    connection.execute("VACUUM ANALYZE memory_vectors")


def _rows(spaces: NDArray[np.int64], ordinals: NDArray[np.int64], generator: VectorGenerator) -> bytes:
    rows = np.zeros(len(spaces), COPY_ROW)
    rows["fields"], rows["dimensions"] = 3, DIMENSIONS
    rows["length_1"], rows["length_2"], rows["length_3"] = 8, 4, 4 + 2 * DIMENSIONS
    rows["space_id"], rows["ordinal"], rows["embedding"] = spaces, ordinals, generator.vectors(len(spaces))
    return rows.tobytes()

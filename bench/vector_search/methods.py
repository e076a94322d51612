"""Methods of finding the vectors of one space that are nearest to a query's, over the same rows."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.vector_search.data import Vectors
from models.memory import code_search, vector_codes, vector_search, vectors
from models.memory.spaces import Space
from models.memory.vectors import format_vector
from models.platform.database import Connection, fetch_all

#: Candidates that an HNSW search examines at least.
EF_SEARCH = 200


class Method(Protocol):
    """A method; `sizes` has the number of memories of each space."""

    name: str

    def build(self, connection: Connection, sizes: Mapping[int, int]) -> None:
        """Build what the method needs, for the spaces that are searched."""

    def search(self, connection: Connection, space_id: int, vector: NDArray[np.float32], limit: int) -> list[int]:
        """Return the ordinals of the nearest, the nearest first."""

    def insert(self, connection: Connection, space: Space, vector: Sequence[float]) -> None:
        """Insert a memory with the next ordinal."""

    def size(self, connection: Connection) -> int:
        """Return the bytes that the method needs beside the rows."""

    def drop(self, connection: Connection) -> None:
        """Drop what was built."""


class Exact:
    """Compare all vectors of the space, in Postgres."""

    name = "exact"

    def build(self, connection: Connection, sizes: Mapping[int, int]) -> None:
        pass

    def search(self, connection: Connection, space_id: int, vector: NDArray[np.float32], limit: int) -> list[int]:
        return [ordinal for ordinal, _ in vectors.search_exact(connection, space_id, vector.tolist(), limit)]

    def insert(self, connection: Connection, space: Space, vector: Sequence[float]) -> None:
        vectors.insert(connection, space.id, {space.next_ordinal: vector})

    def size(self, connection: Connection) -> int:
        return 0

    def drop(self, connection: Connection) -> None:
        pass


class Codes(Exact):
    """Select candidates by binary codes in this process, and compare them in Postgres: the platform's method."""

    name = "packed codes"

    def build(self, connection: Connection, sizes: Mapping[int, int]) -> None:
        connection.execute("""
            CREATE TABLE memory_vector_codes (
                space_id bigint NOT NULL, block integer NOT NULL, codes bytea NOT NULL, version uuid NOT NULL,
                PRIMARY KEY (space_id, block));
            ALTER TABLE memory_vector_codes ALTER COLUMN codes SET STORAGE EXTERNAL""")
        for space_id, count in sizes.items():
            while vector_codes.pack(connection, space_id, count):
                pass

    def search(self, connection: Connection, space_id: int, vector: NDArray[np.float32], limit: int) -> list[int]:
        row = connection.execute("SELECT max(ordinal) + 1 AS next FROM memory_vectors WHERE space_id = %s", (space_id,))
        count = (row.fetchone() or {})["next"]
        space = Space(space_id, "", "", next_ordinal=count, live=count)
        return [ordinal for ordinal, _ in vector_search.nearest(connection, space, vector.tolist(), limit)]

    def insert(self, connection: Connection, space: Space, vector: Sequence[float]) -> None:
        super().insert(connection, space, vector)
        vector_codes.pack_filled(connection, space, 1)

    def size(self, connection: Connection) -> int:
        return _relation_sizes(connection, "^memory_vector_codes$")

    def drop(self, connection: Connection) -> None:
        connection.execute("DROP TABLE memory_vector_codes")


class UncachedCodes(Codes):
    """The same without copies of the codes in this process, as for the first search of a space."""

    name = "packed codes, first search"

    def search(self, connection: Connection, space_id: int, vector: NDArray[np.float32], limit: int) -> list[int]:
        code_search.CACHE = code_search.CodeCache(0)
        return super().search(connection, space_id, vector, limit)


class CachedMatrix(Exact):
    """Keep the vectors in this process, in single precision, and multiply."""

    name = "matrix in the worker"

    def __init__(self) -> None:
        self._matrices: dict[int, Vectors] = {}

    def build(self, connection: Connection, sizes: Mapping[int, int]) -> None:
        statement = "SELECT embedding FROM memory_vectors WHERE space_id = %s AND live ORDER BY ordinal"
        for space_id in sizes:
            with connection.cursor(binary=True) as cursor:
                rows = cursor.execute(statement, (space_id,)).fetchall()
            halves = np.frombuffer(b"".join([row["embedding"][4:] for row in rows]), dtype=">f2")
            self._matrices[space_id] = halves.astype(np.float32).reshape(len(rows), -1)

    def search(self, connection: Connection, space_id: int, vector: NDArray[np.float32], limit: int) -> list[int]:
        similarities = self._matrices[space_id] @ vector
        nearest = np.argpartition(-similarities, limit)[:limit]
        ordinals: list[int] = nearest[np.argsort(-similarities[nearest])].tolist()
        return ordinals

    def size(self, connection: Connection) -> int:
        return sum(matrix.nbytes for matrix in self._matrices.values())

    def drop(self, connection: Connection) -> None:
        self._matrices.clear()


class BitColumn(Exact):
    """Select candidates by binary codes in Postgres, a row each, and compare them exactly."""

    name = "rows of codes in Postgres"

    def build(self, connection: Connection, sizes: Mapping[int, int]) -> None:
        connection.execute("""
            CREATE TABLE code_rows (
                space_id bigint NOT NULL, ordinal integer NOT NULL, code bit(384) NOT NULL,
                PRIMARY KEY (space_id, ordinal));
            INSERT INTO code_rows SELECT space_id, ordinal, binary_quantize(embedding)::bit(384) FROM memory_vectors;
            ANALYZE code_rows""")

    def search(self, connection: Connection, space_id: int, vector: NDArray[np.float32], limit: int) -> list[int]:
        statement = """
            SELECT ordinal FROM (
                SELECT ordinal, code FROM code_rows WHERE space_id = %(space_id)s OFFSET 0) AS mine
            ORDER BY code <~> binary_quantize(%(vector)s::halfvec)::bit(384) LIMIT %(limit)s"""
        parameters = {"space_id": space_id, "vector": format_vector(vector.tolist()), "limit": 8 * limit}
        ordinals = np.array([row["ordinal"] for row in fetch_all(connection, statement, parameters)])
        matches = vectors.search_among(connection, space_id, vector.tolist(), ordinals, limit)
        return [ordinal for ordinal, _ in matches]

    def insert(self, connection: Connection, space: Space, vector: Sequence[float]) -> None:
        super().insert(connection, space, vector)
        connection.execute(
            "INSERT INTO code_rows VALUES (%s, %s, binary_quantize(%s::halfvec)::bit(384))",
            (space.id, space.next_ordinal, format_vector(vector)),
        )

    def size(self, connection: Connection) -> int:
        return _relation_sizes(connection, "^code_rows$")

    def drop(self, connection: Connection) -> None:
        connection.execute("DROP TABLE code_rows")


class Hnsw(Exact):
    """Search an HNSW index of the table, filtered by space, until enough memories of the space are found."""

    name = "one HNSW, filtered"
    table = "memory_vectors"

    def build(self, connection: Connection, sizes: Mapping[int, int]) -> None:
        self._create_index(connection, "hnsw_all")

    def _create_index(self, connection: Connection, name: str, condition: str = "", *, online: bool = True) -> None:
        connection.execute("SET maintenance_work_mem = '512MB'")
        how = "CONCURRENTLY" if online else ""
        connection.execute(
            f"CREATE INDEX {how} {name} ON {self.table} USING hnsw (embedding halfvec_cosine_ops) {condition}"
        )

    def search(self, connection: Connection, space_id: int, vector: NDArray[np.float32], limit: int) -> list[int]:
        settings = {
            "hnsw.ef_search": str(max(EF_SEARCH, limit)), "hnsw.iterative_scan": "relaxed_order",
            "hnsw.max_scan_tuples": "200000", "enable_sort": "off", "enable_seqscan": "off",
            "enable_bitmapscan": "off", "plan_cache_mode": "force_custom_plan",
        }  # fmt: skip
        statement = f"""
            SELECT ordinal, embedding <=> %(vector)s::halfvec AS distance FROM {self.table}
            WHERE space_id = %(space_id)s AND live ORDER BY embedding <=> %(vector)s::halfvec LIMIT %(limit)s"""
        parameters = {"space_id": space_id, "vector": format_vector(vector.tolist()), "limit": limit}
        with connection.transaction():
            columns = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())
            connection.execute(f"SELECT {columns}")
            rows = connection.execute(statement, parameters, prepare=False).fetchall()
        return [row["ordinal"] for row in sorted(rows, key=lambda row: float(row["distance"]))]

    def size(self, connection: Connection) -> int:
        return _relation_sizes(connection, "^hnsw_")

    def drop(self, connection: Connection) -> None:
        connection.execute("DROP INDEX hnsw_all")


class HnswPerSpace(Hnsw):
    """Search an HNSW index of the space: the platform's method before packed codes."""

    name = "HNSW per space"

    def __init__(self) -> None:
        self._names: list[str] = []

    def build(self, connection: Connection, sizes: Mapping[int, int]) -> None:
        for space_id in sizes:
            self._names.append(f"hnsw_of_{space_id}")
            self._create_index(connection, self._names[-1], f"WHERE space_id = {space_id} AND live")

    def drop(self, connection: Connection) -> None:
        while self._names:
            connection.execute(f"DROP INDEX {self._names.pop()}")


class PartitionedHnsw(Hnsw):
    """Search the HNSW index of the space's hash partition, filtered by space."""

    name, table, partitions = "HNSW per hash partition", "partitioned_vectors", 16

    def build(self, connection: Connection, sizes: Mapping[int, int]) -> None:
        connection.execute(f"""
            CREATE TABLE {self.table} (LIKE memory_vectors INCLUDING DEFAULTS INCLUDING STORAGE)
                PARTITION BY HASH (space_id);
            ALTER TABLE {self.table} ADD PRIMARY KEY (space_id, ordinal)""")
        for number in range(self.partitions):
            connection.execute(
                f"CREATE TABLE {self.table}_{number} PARTITION OF {self.table}"
                f" FOR VALUES WITH (MODULUS {self.partitions}, REMAINDER {number})"
            )
        connection.execute(f"INSERT INTO {self.table} SELECT * FROM memory_vectors")
        self._create_index(connection, "hnsw_partitioned", online=False)
        connection.execute(f"ANALYZE {self.table}")

    def insert(self, connection: Connection, space: Space, vector: Sequence[float]) -> None:
        connection.execute(
            f"INSERT INTO {self.table} VALUES (%s, %s, true, %s)", (space.id, space.next_ordinal, format_vector(vector))
        )

    def size(self, connection: Connection) -> int:
        return _relation_sizes(connection, f"^{self.table}_[0-9]+_embedding_idx$")

    def drop(self, connection: Connection) -> None:
        connection.execute(f"DROP TABLE {self.table}")


METHODS: Sequence[type[Exact]] = (
    Exact,
    HnswPerSpace,
    PartitionedHnsw,
    Hnsw,
    BitColumn,
    CachedMatrix,
    Codes,
    UncachedCodes,
)


def _relation_sizes(connection: Connection, pattern: str) -> int:
    statement = """
        SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint AS size FROM pg_class
        WHERE relname ~ %s AND relkind IN ('i', 'r')"""
    row: dict[str, Any] = connection.execute(statement, (pattern,)).fetchone() or {}
    size: int = row["size"]
    return size

"""An HNSW index for each large space, over its vectors alone, so that no other user's vectors slow its searches.

Up to BUILD_ABOVE memories a search compares all of them, which is exact and fast. Above, a job builds an index while
reads and writes continue; until then the search stays exact. The index is dropped when the space shrinks below
DROP_BELOW or is deleted.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg import sql

from models.platform.database import Connection, fetch_all, fetch_one

#: Live memories up to which all are compared: about 10 ms on a slow core.
BUILD_ABOVE = 20_000

#: Below this the index is dropped; in between it is kept.
DROP_BELOW = 10_000

#: Memory of a build: enough for 100,000 vectors.
BUILD_MEMORY = "256MB"

NAME = "memory_vectors_of_"


def index_name(space_id: int) -> str:
    """Return the name of a space's index."""
    return f"{NAME}{space_id}"


# An interrupted build leaves an invalid index.
IS_VALID = """
SELECT FROM pg_class JOIN pg_index ON indexrelid = pg_class.oid
WHERE relname = %(name)s AND indrelid = 'memory_vectors'::regclass AND indisvalid
"""


def is_valid(connection: Connection, space_id: int) -> bool:
    """Return whether the space has a usable index."""
    return fetch_one(connection, IS_VALID, {"name": index_name(space_id)}) is not None


CREATE = sql.SQL("""
CREATE INDEX CONCURRENTLY {name} ON memory_vectors USING hnsw (embedding halfvec_cosine_ops)
WHERE space_id = {space_id} AND live
""")

DROP = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {name}")


def build(connection: Connection, space_id: int) -> None:
    """Build the index unless it is valid. Takes a minute for 100,000 memories. Needs a connection in autocommit."""
    if is_valid(connection, space_id):
        return
    drop(connection, space_id)
    with _without_lock_timeout(connection):
        name, number = sql.Identifier(index_name(space_id)), sql.Literal(space_id)
        connection.execute(CREATE.format(name=name, space_id=number))


def drop(connection: Connection, space_id: int) -> None:
    """Drop a space's index, if there is one. Needs a connection in autocommit."""
    _drop(connection, [index_name(space_id)])


ORPHANS = """
SELECT relname FROM pg_class
WHERE relkind = 'i' AND relname ~ '^memory_vectors_of_[0-9]+$'
  AND NOT EXISTS (SELECT FROM memory_spaces WHERE id = split_part(relname, '_', 4)::bigint)
LIMIT 100
"""


def drop_orphans(connection: Connection) -> int:
    """Drop at most 100 indexes of deleted spaces. Returns how many. Needs a connection in autocommit."""
    names = [row["relname"] for row in fetch_all(connection, ORPHANS)]
    _drop(connection, names)
    return len(names)


EXISTS = "SELECT FROM pg_class WHERE relname = ANY(%(names)s) LIMIT 1"


def _drop(connection: Connection, names: Sequence[str]) -> None:
    if fetch_one(connection, EXISTS, {"names": list(names)}) is None:
        return
    with _without_lock_timeout(connection):
        for name in names:
            connection.execute(DROP.format(name=sql.Identifier(name)))


@contextmanager
def _without_lock_timeout(connection: Connection) -> Iterator[None]:
    """Disable the lock time-out: building and dropping concurrently waits for all older transactions."""
    connection.execute("SET lock_timeout = 0")
    connection.execute(sql.SQL("SET maintenance_work_mem = {memory}").format(memory=sql.Literal(BUILD_MEMORY)))
    try:
        yield
    finally:
        if not connection.closed and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            connection.execute("RESET lock_timeout")  # to the connection's initial value
            connection.execute("RESET maintenance_work_mem")

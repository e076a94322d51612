"""An index by meaning of a large space's own: HNSW over its vectors alone, so that no other user's stand in its way.

Up to MOST memories a search looks at all of them, which is exact and fast. Above, a job builds an index while
reads and writes go on; until it stands the search stays exact. It goes when the space shrinks below FEWEST, or goes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg import sql

from models.platform.database import Connection, fetch_all, fetch_one

#: Live memories that are looked at one by one: about 10 ms on a slow core.
BUILD_ABOVE = 20_000

#: Below this an index is not worth its upkeep; in between it stays as it is.
DROP_BELOW = 10_000

#: Memory for a build: 100,000 vectors fit.
BUILD_MEMORY = "256MB"

NAME = "memory_vectors_of_"


def index_name(space_id: int) -> str:
    """The name of a space's index."""
    return f"{NAME}{space_id}"


# One that stands whole; a build that was cut off leaves one that does not.
STANDS = """
SELECT FROM pg_class JOIN pg_index ON indexrelid = pg_class.oid
WHERE relname = %(name)s AND indrelid = 'memory_vectors'::regclass AND indisvalid
"""


def is_valid(connection: Connection, space_id: int) -> bool:
    """Whether the space's index can be used."""
    return fetch_one(connection, STANDS, {"name": index_name(space_id)}) is not None


CREATE = sql.SQL("""
CREATE INDEX CONCURRENTLY {name} ON memory_vectors USING hnsw (embedding halfvec_cosine_ops)
WHERE space_id = {space_id} AND live
""")

DROP = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {name}")


def build(connection: Connection, space_id: int) -> None:
    """Build the index, unless it stands. Takes a minute for 100,000 memories; for a connection in autocommit."""
    if is_valid(connection, space_id):
        return
    drop(connection, space_id)
    with _patient(connection):
        name, number = sql.Identifier(index_name(space_id)), sql.Literal(space_id)
        connection.execute(CREATE.format(name=name, space_id=number))


def drop(connection: Connection, space_id: int) -> None:
    """Drop a space's index, if there is one. For a connection in autocommit."""
    _drop(connection, [index_name(space_id)])


# Whose space is gone.
ORPHANS = """
SELECT relname FROM pg_class
WHERE relkind = 'i' AND relname ~ '^memory_vectors_of_[0-9]+$'
  AND NOT EXISTS (SELECT FROM memory_spaces WHERE id = split_part(relname, '_', 4)::bigint)
LIMIT 100
"""


def drop_orphans(connection: Connection) -> int:
    """Drop at most 100 indexes of spaces that are gone; returns how many. For a connection in autocommit."""
    found = [row["relname"] for row in fetch_all(connection, ORPHANS)]
    _drop(connection, found)
    return len(found)


EXISTS = "SELECT FROM pg_class WHERE relname = ANY(%(names)s) LIMIT 1"


def _drop(connection: Connection, found: Sequence[str]) -> None:
    if fetch_one(connection, EXISTS, {"names": list(found)}) is None:
        return
    with _patient(connection):
        for name in found:
            connection.execute(DROP.format(name=sql.Identifier(name)))


@contextmanager
def _patient(connection: Connection) -> Iterator[None]:
    """It waits for the transactions that began before it, which our other statements would not do."""
    connection.execute("SET lock_timeout = 0")
    connection.execute(sql.SQL("SET maintenance_work_mem = {memory}").format(memory=sql.Literal(BUILD_MEMORY)))
    try:
        yield
    finally:
        if not connection.closed and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            connection.execute("RESET lock_timeout")  # to what the connection began with
            connection.execute("RESET maintenance_work_mem")

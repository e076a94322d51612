"""Drop the HNSW indexes of single spaces, which versions before the table `memory_vector_codes` built.

Each slowed every insert a little, and its build held back vacuum for all tables. The previous version uses them where
`memory_spaces.indexed_at` is set, and asks for one at most every ten minutes after `index_asked_at`. This module and
the two columns can be deleted once no installation has such an index.
"""

import psycopg
from psycopg import sql

from models.platform.database import Connection, fetch_all

LIST = """
SELECT split_part(relname, '_', 4)::bigint AS space_id FROM pg_class
WHERE relkind = 'i' AND relname ~ '^memory_vectors_of_[0-9]+$' ORDER BY 1
"""


def indexed_spaces(connection: Connection) -> list[int]:
    """Return the ids of the spaces with an index, deleted ones included."""
    return [row["space_id"] for row in fetch_all(connection, LIST)]


UNMARK = "UPDATE memory_spaces SET indexed_at = NULL, index_asked_at = now() WHERE id = %(id)s"

DROP = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {name}")


def drop(connection: Connection, space_id: int) -> None:
    """Drop a space's index, if there is one. Needs a connection in autocommit."""
    connection.execute(UNMARK, {"id": space_id})  # first: searches that follow must not rely on the index
    # Without a lock time-out: dropping concurrently waits for all older transactions.
    connection.execute("SET lock_timeout = 0")
    try:
        connection.execute(DROP.format(name=sql.Identifier(f"memory_vectors_of_{space_id}")))
    finally:
        if not connection.closed and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            connection.execute("RESET lock_timeout")  # to the connection's initial value

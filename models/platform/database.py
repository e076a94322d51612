"""The one way to Postgres: a pool of connections, shared by every thread of a process.

Connections stand in autocommit: a single statement costs one round trip. `transaction()` opens a transaction, and
`batch()` one whose statements travel together up to the next result that is read, BEGIN and COMMIT among them.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import orjson
import psycopg
from psycopg import Connection as PsycopgConnection
from psycopg.errors import InFailedSqlTransaction
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg_pool import ConnectionPool, PoolTimeout

from models.platform.errors import Unavailable

log = logging.getLogger(__name__)

set_json_dumps(orjson.dumps)
set_json_loads(orjson.loads)

#: Seconds that a caller waits for a free connection.
CHECKOUT_TIMEOUT = 5.0

#: Seconds after which one who still waits asks again. The pool tries to connect when it is asked, once; nobody else
#: would notice that the server is back.
PATIENCE = 0.5


#: A process that is frozen inside a transaction must not hold its locks for long.
FROZEN = 10
OPTIONS = f"-c idle_in_transaction_session_timeout={FROZEN}s -c lock_timeout=10s"

#: A server that has gone without a word is noticed after about ten seconds.
KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 2, "tcp_user_timeout": 10_000}


#: Postgres answers COMMIT with ROLLBACK there, and calls that a success.
NOTHING_DONE = "a statement of the transaction failed, and its error was let pass: nothing was done"


class Connection(PsycopgConnection[DictRow]):
    """A connection whose rows are dictionaries."""

    def sync(self) -> None:
        """In a batch, wait until all that was said so far is answered, in one round trip.

        Then Postgres sees a transaction that is idle, and ends it where we are frozen before we go on. Before each wait
        for anything else, and before each decision that must not hold locks for long, a batch is to be settled.
        """
        if self._pipeline is not None:
            self._pipeline.sync()


class Database:
    """A pool of at most `size` connections to `dsn`. Opening it does not wait for the server."""

    def __init__(self, dsn: str, *, size: int = 8, name: str = "sangha") -> None:
        self.dsn = dsn
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            dsn,
            connection_class=Connection,
            min_size=1,
            max_size=size,
            reconnect_timeout=0,
            kwargs={
                "autocommit": True,
                "row_factory": dict_row,
                "application_name": name,
                "connect_timeout": 5,
                "options": OPTIONS,
                **KEEPALIVE,
            },
            name=name,
            open=True,
        )

    def close(self) -> None:
        """Give all connections back."""
        self._pool.close(timeout=2)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection in autocommit. Raises Unavailable when the server does not answer."""
        try:
            checked_out = self._checkout()
            try:
                with checked_out as connection:
                    yield connection
            finally:
                self._pool.putconn(checked_out)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            # After a restart of the server every pooled connection is stale: renew them now, not one caller at a time.
            self._renew()
            log.warning("the connection to the database was lost: %s", str(error).replace("\n", " "))
            raise Unavailable("The connection to the database was lost.") from error

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a transaction that commits at the end."""
        with self.connection() as connection, connection.transaction():
            yield connection
            if connection.info.transaction_status in (TransactionStatus.INERROR, TransactionStatus.UNKNOWN):
                raise InFailedSqlTransaction(NOTHING_DONE)

    @contextmanager
    def batch(self) -> Iterator[Connection]:
        """A transaction whose statements travel together: only a read of a result waits for the server.

        What fails on the way is raised by the next read, or at the end; whatever came after it was not done.
        """
        with self.connection() as connection:
            try:
                with connection.pipeline():
                    connection.execute("BEGIN")
                    yield connection
                    committed = connection.execute("COMMIT")
                if committed.statusmessage != "COMMIT":
                    raise InFailedSqlTransaction(NOTHING_DONE)
            except BaseException:
                with suppress(psycopg.Error):  # of a connection that is lost, Postgres takes back what it began
                    connection.rollback()
                raise

    def _checkout(self) -> Connection:
        deadline = time.monotonic() + CHECKOUT_TIMEOUT
        while True:
            try:
                return self._pool.getconn(timeout=PATIENCE)
            except PoolTimeout:
                if time.monotonic() > deadline:
                    raise Unavailable("The database does not answer.") from None

    def _renew(self) -> None:
        with suppress(Exception):  # the pool reconnects by itself; this only makes it sooner
            self._pool.check()


def fetch_one(connection: Connection, statement: str, parameters: Any = None) -> DictRow | None:
    """The first row of a statement, or None."""
    return connection.execute(statement, parameters).fetchone()


def fetch_all(connection: Connection, statement: str, parameters: Any = None) -> list[DictRow]:
    """All rows of a statement."""
    return connection.execute(statement, parameters).fetchall()


# Until a batch is settled or commits, Postgres takes it for active, and its timeout for idle transactions does not run.
# One that waits for its client for so long is ended here; COPY waits for its client by nature.
END_FROZEN = """
SELECT pid, application_name AS name, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
  AND state = 'active' AND wait_event = 'ClientRead' AND query !~* '^\\s*copy'
  AND state_change < clock_timestamp() - make_interval(secs => %(seconds)s)
"""


def terminate_stalled_batches(connection: Connection, *, seconds: float = FROZEN) -> int:
    """Take back the batches of processes that say nothing more in the middle of them. Returns how many there were."""
    ended = fetch_all(connection, END_FROZEN, {"seconds": seconds})
    for row in ended:
        log.warning("a session of %s said nothing more in the middle of a batch, which is taken back", row["name"])
    return len(ended)

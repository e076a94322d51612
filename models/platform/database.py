"""Connections to Postgres: a pool shared by all threads of a process.

Connections are in autocommit mode: a single statement costs one round trip. `transaction()` opens a transaction.
`batch()` opens one in pipeline mode: its statements, BEGIN and COMMIT included, are sent together until a result is
read.

Connections may go through a pooler in transaction mode, such as PgBouncer, which gives each transaction another
connection of the server. So nothing here may rely on the state of a session: no statements are prepared, and no
settings are sent when connecting (see `models/platform/pooler.py`).
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import orjson
import psycopg
from psycopg import Connection as PsycopgConnection
from psycopg import Cursor, generators
from psycopg.abc import PQGen
from psycopg.errors import InFailedSqlTransaction
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg_pool import ConnectionPool, PoolTimeout

from models.platform.errors import Unavailable
from models.platform.migration_files import process_name
from models.platform.outages import READ_ONLY, is_conflict, is_outage
from models.platform.settings import Settings

log = logging.getLogger(__name__)

set_json_dumps(orjson.dumps)
set_json_loads(orjson.loads)

#: Seconds that a caller waits for a free connection.
CHECKOUT_TIMEOUT = 5.0

#: Seconds after which a waiting caller asks the pool again. The pool tries to connect once per request, so without this
#: a waiting caller would time out although the server is back.
CHECKOUT_RETRY = 0.5

#: Seconds after which an idle transaction is rolled back: a frozen process must not hold its locks for long.
IDLE_TIMEOUT = 10
LIMITS = {"idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT}s", "lock_timeout": "10s"}

#: Parameters of a connection to Postgres itself, and of one to a pooler.
DIRECT: dict[str, Any] = {"options": " ".join(f"-c {name}={value}" for name, value in LIMITS.items())}
POOLED: dict[str, Any] = {"prepare_threshold": None}

#: A dead server is detected after about ten seconds.
KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 2, "tcp_user_timeout": 10_000}


#: Postgres answers COMMIT with ROLLBACK in a failed transaction, which psycopg does not raise as an error.
ROLLED_BACK = "The transaction was rolled back: one of its statements failed, and the error was ignored."


class Connection(PsycopgConnection[DictRow]):
    """A connection whose rows are dictionaries."""

    def __init__(self, pgconn: PGconn, row_factory: Any = dict_row) -> None:
        super().__init__(pgconn, row_factory)
        self.inserted: list[Cursor[DictRow]] = []
        self.opened_at = time.monotonic()

    def nudge_after_commit(self, inserted: Cursor[DictRow]) -> None:
        """Have the jobs published that a statement inserts, once they are committed. It returns each one's `lane`."""
        self.inserted.append(inserted)

    def inserted_lanes(self) -> set[str]:
        """Return the lanes of the jobs to publish. A statement that has failed has none."""
        results = [cursor for cursor in self.inserted if cursor.description is not None]
        return {row["lane"] for cursor in results for row in cursor}

    def sync(self) -> None:
        """In a batch, wait for the results of all statements so far, in one round trip.

        Afterwards Postgres sees an idle transaction, and rolls it back if this process is frozen. Call it before
        waiting for anything else, and before a decision that must not hold locks for long.
        """
        if self._pipeline is not None:
            self._pipeline.sync()


class _Batch(psycopg.Pipeline):
    """A pipeline that sends its statements with the next read of a result or sync.

    psycopg's sends each at once, which costs a system call and wakes the server. It also sends only what the socket
    takes at once, and then waits for an answer while the server waits for the rest of the statement.
    """

    def _communicate_gen(self) -> PQGen[None]:
        while self.command_queue:
            self.command_queue.popleft()()  # writes to libpq's buffer
        if self.result_queue and self.result_queue[-1] is None:  # a sync
            yield from generators.send(self.pgconn)


class _FreeConnections(deque[Connection]):
    """The free connections of a pool; the one that was returned last is taken first.

    psycopg takes the one that was returned first, so that a busy process uses all its connections in turn. Each has a
    process of the server with caches and plans of its own.
    """

    def popleft(self) -> Connection:
        return self.pop()


class PoolSize(NamedTuple):
    """The connections of a pool that are busy and idle, and the threads that wait for one."""

    busy: int
    idle: int
    waiting: int


class Database:
    """A pool of at most `size` connections to `dsn`, or through `pooler`, the DSN of a pooler in transaction mode.

    Opening it does not wait for the server.

    nudge  publishes due jobs of lanes: see `Connection.nudge_after_commit`. The relay of the process sets it.
    """

    nudge: Callable[..., None] | None = None

    def __init__(self, dsn: str, *, size: int = 8, name: str = "sangha", pooler: str | None = None) -> None:
        self.dsn = dsn
        self.name = name
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            pooler or dsn,
            connection_class=Connection,
            min_size=1,
            max_size=size,
            reconnect_timeout=0,
            kwargs={
                "autocommit": True,
                "row_factory": dict_row,
                "application_name": name,
                "connect_timeout": 5,
                **(POOLED if pooler else DIRECT),
                **KEEPALIVE,
            },
            name=name,
            open=False,
        )
        self._pool._pool = _FreeConnections()
        self._replaced_at = 0.0
        self._pool.open()

    @classmethod
    def open(cls, settings: Settings, *, size: int, name: str) -> "Database":
        """Open the database of the settings, through its pooler if there is one."""
        pooler = settings.database_pooler_url
        database = cls(settings.postgres_dsn, size=size, name=process_name(name), pooler=pooler)
        database.name = name
        return database

    def close(self) -> None:
        """Close all connections."""
        self._pool.close(timeout=2)

    def pool_size(self) -> PoolSize:
        """Return how many connections the pool has."""
        stats = self._pool.get_stats()
        idle = stats.get("pool_available", 0)
        return PoolSize(stats.get("pool_size", 0) - idle, idle, stats.get("requests_waiting", 0))

    @contextmanager
    def connection(self, *, wait: float = CHECKOUT_TIMEOUT) -> Iterator[Connection]:
        """Check out a connection in autocommit mode, for which the caller waits so many seconds.

        Raises Unavailable if the server cannot be reached, or has rolled back the transaction in favour of another.
        """
        connection = self._checkout(wait)
        try:
            with connection:
                yield connection
            self._nudge(connection.inserted_lanes())
        except psycopg.Error as error:
            if is_conflict(error):
                raise Unavailable("The operation conflicted with a concurrent one. Retry it.") from error
            if not is_outage(error, connection):
                raise
            if connection.closed or error.sqlstate == READ_ONLY:
                self._replace_connections(connection)
            connection.close()  # also where it is still open, as to a former primary
            log.warning("The database is unavailable: %s", " ".join(str(error).split()))
            raise Unavailable("The database is unavailable.") from error
        finally:
            self._return(connection)

    def _nudge(self, lanes: set[str]) -> None:
        if lanes and self.nudge is not None:
            self.nudge(*lanes)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Check out a connection with a transaction, which is committed at the end of the block."""
        with self.connection() as connection, connection.transaction():
            yield connection
            if connection.info.transaction_status in (TransactionStatus.INERROR, TransactionStatus.UNKNOWN):
                raise InFailedSqlTransaction(ROLLED_BACK)

    @contextmanager
    def batch(self) -> Iterator[Connection]:
        """Check out a connection with a pipelined transaction: only reading a result waits for the server.

        The error of a statement is raised by the next read or at the end of the block. Statements after it are not
        executed.
        """
        with self.connection() as connection:
            try:
                connection._pipeline = _Batch(connection)  # which `pipeline` then uses
                with connection.pipeline():
                    connection.execute("BEGIN")
                    yield connection
                    committed = connection.execute("COMMIT")
                if committed.statusmessage != "COMMIT":
                    raise InFailedSqlTransaction(ROLLED_BACK)
            except BaseException:
                with suppress(psycopg.Error):  # the connection is lost, so Postgres rolls back
                    connection.rollback()
                raise

    def _checkout(self, wait: float) -> Connection:
        deadline = time.monotonic() + wait
        while True:
            try:
                return self._pool.getconn(timeout=CHECKOUT_RETRY)
            except PoolTimeout:
                if time.monotonic() > deadline:
                    raise Unavailable("The database is unavailable.") from None

    def _return(self, connection: Connection) -> None:
        connection.inserted.clear()
        self._pool.putconn(connection)

    def _replace_connections(self, lost: Connection) -> None:
        """Replace all connections, since the others are probably lost, too, as after a restart or a failover.

        They are not checked first: a connection to a host that is cut off takes its time-out to fail. Many threads lose
        theirs at once: only the first one replaces them.
        """
        if lost.opened_at < self._replaced_at:
            return
        self._replaced_at = time.monotonic()
        with suppress(Exception):
            self._pool.drain()


def fetch_one(connection: Connection, statement: str, parameters: Any = None) -> DictRow | None:
    """Return the first row of a statement's result, or None."""
    return connection.execute(statement, parameters).fetchone()


def fetch_all(connection: Connection, statement: str, parameters: Any = None) -> list[DictRow]:
    """Return all rows of a statement's result."""
    return connection.execute(statement, parameters).fetchall()


# Until a batch is synced or commits, Postgres considers it active, and idle_in_transaction_session_timeout does not
# apply. So backends that have waited for their client that long are terminated here. COPY waits for its client by
# design.
TERMINATE_STALLED = """
SELECT pid, application_name AS name, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
  AND state = 'active' AND wait_event = 'ClientRead' AND query !~* '^\\s*copy'
  AND state_change < clock_timestamp() - make_interval(secs => %(seconds)s)
"""


def terminate_stalled_batches(connection: Connection, *, seconds: float = IDLE_TIMEOUT) -> int:
    """Roll back the batches of processes that stopped sending for `seconds`. Returns how many there were."""
    stalled = fetch_all(connection, TERMINATE_STALLED, {"seconds": seconds})
    for row in stalled:
        log.warning("Rolled back a batch of %s: it was idle for too long", row["name"])
    return len(stalled)

"""Leadership: of any number of schedulers one holds an advisory lock, on a connection of its own.

The lock goes with the connection, however its process dies, and the next one takes it.
"""

import contextlib
import logging
import threading

import psycopg

log = logging.getLogger(__name__)

#: Any number will do, as long as nobody else takes it.
LOCK = 0x73616E6768616C

#: A connection that has gone silently is noticed after about ten seconds.
KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 2, "connect_timeout": 5}


class Leadership:
    """Whether this process is the leader; asked before everything that only the leader may do."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection | None = None
        self._guard = threading.Lock()

    def held(self) -> bool:
        """Take the lock if it is free, or make sure that we still have it. Safe to call from several threads."""
        with self._guard:
            return self._held()

    def _held(self) -> bool:
        try:
            if self._connection is None:
                self._connection = self._try()
            else:
                self._connection.execute("SELECT 1")
        except psycopg.Error as error:
            log.warning("leadership is unsure: %s", error)
            self.give_up()
        return self._connection is not None

    def give_up(self) -> None:
        """Let another one lead."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
        self._connection = None

    def _try(self) -> psycopg.Connection | None:
        connection = psycopg.connect(
            self._dsn,
            autocommit=True,
            application_name="scheduler leader",
            **KEEPALIVE,  # type: ignore[arg-type]
        )
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
        if row is not None and row[0]:
            log.info("leading")
            return connection
        connection.close()
        return None

"""Leadership: of any number of schedulers one holds an advisory lock, on a connection of its own.

The lock goes with the connection, however its process dies, and the next one takes it. A process that is frozen says
nothing on its connection, and the database ends that after IDLE. Two leaders for a moment do no harm: what they do is
done once by what stands in the tables.
"""

import contextlib
import logging
import os
import socket
import threading
from dataclasses import dataclass
from datetime import datetime

import psycopg

from models.platform.database import Connection, one

log = logging.getLogger(__name__)

#: Any number will do, as long as nobody else takes it.
LOCK = 0x73616E6768616C

#: A connection that has gone silently is noticed after about ten seconds.
KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 2, "connect_timeout": 5}

#: Seconds without a word after which the database takes the lead away.
IDLE = 5

#: What connections of schedulers are called; behind it stands whose it is. Postgres cuts names after 63 characters.
NAME = "scheduler "


class Leadership:
    """Whether this process is the leader; asked before everything that only the leader may do, and again and again."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection | None = None
        self._leads = False
        self._guard = threading.Lock()

    def held(self) -> bool:
        """Take the lock if it is free, or make sure that we still have it. Safe to call from several threads."""
        with self._guard:
            return self._held()

    def _held(self) -> bool:
        known = self._connection is not None
        try:
            if self._connection is None:
                self._connection = self._connect()
            if self._leads:
                self._connection.execute("SELECT 1")
            else:
                self._leads = self._try(self._connection)
        except psycopg.Error as error:
            if known:
                log.warning("leadership is unsure: %s", str(error).replace("\n", " "))
            self._leave()
        return self._leads

    def give_up(self) -> None:
        """Let another one lead."""
        with self._guard:
            self._leave()

    def _leave(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
        self._connection, self._leads = None, False

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            self._dsn,
            autocommit=True,
            application_name=f"{NAME}{os.getpid()}@{socket.gethostname()}"[:63],
            options=f"-c idle_session_timeout={IDLE}s",
            **KEEPALIVE,  # type: ignore[arg-type]
        )

    def _try(self, connection: psycopg.Connection) -> bool:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
        if row is None or not row[0]:
            return False
        log.info("leading")
        return True


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads: `pid@host`, and since when its connection stands."""

    name: str
    since: datetime


# Who holds the lock. Its key is stored in two halves.
HOLDER = """
SELECT application_name AS name, backend_start AS since
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND classid = (%(lock)s::bigint >> 32)::oid AND objid = (%(lock)s::bigint & 4294967295)::oid
  AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def leader(connection: Connection) -> Leader | None:
    """The process that leads now, as the database sees it."""
    row = one(connection, HOLDER, {"lock": LOCK})
    return Leader(row["name"].removeprefix(NAME), row["since"]) if row else None

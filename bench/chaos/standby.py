"""A standby of Postgres by asynchronous streaming replication, and its promotion without the primary's last commits.

The clients, the links and the checker reach whichever server is the primary through the same addresses.
"""

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from bench.chaos.transcripts import Period
from bench.harness.waiting import wait_until
from ops.embedded_servers import Postgres

#: Seconds during which the primary commits what the standby never receives.
LOST_SECONDS = 1.0

#: Seconds that the standby may take to catch up, to stop receiving, and to be promoted.
PATIENCE = 30.0

#: Stops the replication: a receiver without an address ends.
STOP_RECEIVING = ("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
RECEIVERS = "SELECT count(*) FROM pg_stat_wal_receiver"
PROMOTE = f"SELECT pg_promote(true, {PATIENCE:.0f})"

#: Whether a standby has received all that the primary has written.
CAUGHT_UP = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"


class Standby(Postgres):
    """A copy of a primary that follows it."""

    name = "standby"

    def __init__(self, folder: Path, sockets: Path, primary: Postgres) -> None:
        super().__init__(folder, sockets)
        self._primary = primary

    def _create_cluster(self) -> None:
        """Copy the primary."""
        copy_primary(self, str(self._primary.sockets))


def copy_primary(standby: Postgres, primary: str) -> None:
    """Copy the server at a host or in a folder of sockets, so that the copy follows it when it starts."""
    fresh = standby.folder.with_name(standby.folder.name + ".new")
    for folder in (fresh, standby.folder):
        shutil.rmtree(folder, ignore_errors=True)
    fresh.mkdir(parents=True, mode=0o700)
    options = ["-D", str(fresh), "--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream"]
    standby.run_program("pg_basebackup", ["-h", primary, "-U", "postgres", *options], fresh)
    fresh.rename(standby.folder)


def wait_for_replication(primary: Postgres) -> None:
    """Wait until a standby follows. Raises TimeoutError."""
    wait_until(lambda: _value(primary, CAUGHT_UP), PATIENCE, interval=0.1, what="a standby that follows")


def lose_commits(standby: Postgres, kill_primary: Callable[[], None]) -> Period:
    """Stop the replication, let the primary commit for a while, and kill it. Returns when commits were lost."""
    began = time.monotonic()
    for statement in STOP_RECEIVING:
        _execute(standby, statement)
    wait_until(lambda: not _value(standby, RECEIVERS), PATIENCE, interval=0.05, what="the end of the replication")
    time.sleep(LOST_SECONDS)
    kill_primary()
    return Period(began, time.monotonic())


def promote(standby: Postgres) -> None:
    """Make a standby the primary, and wait until it is."""
    _execute(standby, PROMOTE)


def _execute(server: Postgres, statement: str) -> None:
    with contextlib.closing(psycopg.connect(server.dsn, autocommit=True)) as connection:
        connection.execute(statement.encode())


def _value(server: Postgres, statement: str) -> object:
    with contextlib.closing(psycopg.connect(server.dsn, autocommit=True)) as connection:
        row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else None

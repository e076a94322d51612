"""Operations on Postgres that a worker repeats while it is unavailable, since a job must end or be put back."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import psycopg

from models.platform.database import Connection, Database
from models.platform.errors import Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between two tries.
RETRY_INTERVAL = 0.25

#: Times in a row that an operation may lose its connection while the server answers others. Then it has failed: it may
#: be the cause, and repeating it for ever would hold its thread.
MAX_LOSSES = 5

#: SQLSTATEs of a lost connection besides none at all: it was idle for too long, or ended by an operator or a crash.
LOSSES = (None, "25P03", "57P01", "57P02")


class RetryingDatabase:
    """Runs operations in transactions of their own, again while Postgres is unavailable, until the worker stops."""

    def __init__(self, database: Database, stopping: threading.Event) -> None:
        self._database = database
        self._stopping = stopping

    def run(self, operation: Callable[[Connection], T]) -> T:
        """Run an operation in a transaction.

        Raises Unavailable when the worker is stopping, and psycopg.Error if the operation keeps losing its connection,
        like the methods below.
        """
        return self._repeat(operation, self._database.transaction)

    def run_in_batch(self, operation: Callable[[Connection], T]) -> T:
        """Run an operation in a pipelined transaction."""
        return self._repeat(operation, self._database.batch)

    def run_in_autocommit(self, operation: Callable[[Connection], T]) -> T:
        """Run an operation without a transaction."""
        return self._repeat(operation, self._database.connection)

    def _repeat(
        self, operation: Callable[[Connection], T], context: Callable[[], AbstractContextManager[Connection]]
    ) -> T:
        losses = 0
        while True:
            try:
                with context() as connection:
                    return operation(connection)
            except Unavailable as error:
                if self._stopping.is_set():
                    raise
                lost = _loss_of(error)
                losses = losses + 1 if lost is not None and self._answers() else 0
                if lost is not None and losses == MAX_LOSSES:
                    raise lost from None
                log.warning("Database unavailable, retrying: %s", error)
                time.sleep(RETRY_INTERVAL)

    def _answers(self) -> bool:
        """Return whether the server answers on another connection."""
        try:
            with self._database.connection() as connection:
                connection.execute("SELECT 1")
        except Unavailable:
            return False
        return True


def _loss_of(error: Unavailable) -> psycopg.Error | None:
    """Return the error with which a connection was lost, or None if it was another outage."""
    cause = error.__cause__
    return cause if isinstance(cause, psycopg.Error) and cause.sqlstate in LOSSES else None

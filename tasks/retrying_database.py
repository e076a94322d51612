"""Operations on Postgres that a worker repeats while it is unavailable, since a job must end or be put back."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from models.platform.database import Connection, Database
from models.platform.errors import Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between two tries.
RETRY_INTERVAL = 0.25


class RetryingDatabase:
    """Runs operations in transactions of their own, again while Postgres is unavailable, until the worker stops."""

    def __init__(self, database: Database, stopping: threading.Event) -> None:
        self._database = database
        self._stopping = stopping

    def run(self, operation: Callable[[Connection], T]) -> T:
        """Run an operation in a transaction. Raises Unavailable when the worker is stopping, like the methods below."""
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
        while True:
            try:
                with context() as connection:
                    return operation(connection)
            except Unavailable as error:
                if self._stopping.is_set():
                    raise
                log.warning("Database unavailable, retrying: %s", error)
                time.sleep(RETRY_INTERVAL)

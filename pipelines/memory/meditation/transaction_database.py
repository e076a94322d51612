"""A transaction that is still open, in the place of the database: recall sees what it would do, before it is done."""

from collections.abc import Iterator
from contextlib import contextmanager

from models.platform.database import Connection, Database


class TransactionDatabase(Database):
    """One connection, lent to who reads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """The connection, in its transaction."""
        yield self._connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A part of the transaction that leaves nothing behind, settings of the planner's included."""
        with self._connection.transaction(force_rollback=True):
            yield self._connection

    @contextmanager
    def batch(self) -> Iterator[Connection]:
        """The same."""
        with self.transaction() as connection:
            yield connection

    def close(self) -> None:
        """It is not ours to close."""

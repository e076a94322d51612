"""Present an open transaction as a database, so that recall can be evaluated on uncommitted changes."""

from collections.abc import Iterator
from contextlib import contextmanager

from models.platform.database import Connection, Database


class TransactionDatabase(Database):
    """A database that lends one connection, inside its open transaction, to readers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def connection(self, *, wait: float = 0.0) -> Iterator[Connection]:
        """Lend the connection, in its transaction."""
        yield self._connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run a savepoint that is always rolled back, planner settings included."""
        with self._connection.transaction(force_rollback=True):
            yield self._connection

    @contextmanager
    def batch(self) -> Iterator[Connection]:
        """Run a savepoint that is always rolled back."""
        with self.transaction() as connection:
            yield connection

    def close(self) -> None:
        """Do nothing: the connection belongs to its owner."""

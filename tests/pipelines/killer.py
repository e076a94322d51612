"""A worker that is killed at any step of its work."""

import pytest

from models.platform.database import Connection
from models.platform.object_store import ObjectStore


class Killed(BaseException):
    """The worker is killed here."""


class Killer:
    """Kills the process at its n-th step: the connection is lost, and what was not committed with it.

    A step is a statement, or the time before or after content is stored.

    left  steps until then; 0: it lives
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        execute, put = Connection.execute, ObjectStore.put

        def counting_execute(connection, *arguments, **options):
            self._step(connection)
            return execute(connection, *arguments, **options)

        def counting_put(objects, *arguments, **options):
            self._step()
            size = put(objects, *arguments, **options)
            self._step()
            return size

        monkeypatch.setattr(Connection, "execute", counting_execute)
        monkeypatch.setattr(ObjectStore, "put", counting_put)

    def _step(self, connection: Connection | None = None) -> None:
        if not self.left:
            return
        self.left -= 1
        if self.left == 0:
            if connection is not None:
                connection.close()
            raise Killed

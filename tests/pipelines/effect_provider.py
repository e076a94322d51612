"""A provider of effects for tests, and crashes at chosen points."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from models.platform.database import Connection, Database
from models.platform.errors import PermanentFailure
from pipelines.effects import LookUpAnswer


class Crash(BaseException):
    """The worker's process dies."""


class ConnectionLost(Exception):
    """The provider's answer does not arrive."""


@dataclass
class Provider:
    """An honest provider: a repeated key has the outcome of the first call and no effect of its own."""

    refuses: bool = False
    outcomes: dict[str, Mapping[str, Any] | PermanentFailure] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    look_ups: list[str] = field(default_factory=list)

    @property
    def effects(self) -> int:
        """How many calls had an effect."""
        return sum(not isinstance(outcome, PermanentFailure) for outcome in self.outcomes.values())

    def call(self, key: str) -> Mapping[str, Any]:
        """Perform the effect once for each key."""
        self.calls.append(key)
        if key not in self.outcomes:
            declined = PermanentFailure("The card was declined.", code="card_declined")
            self.outcomes[key] = declined if self.refuses else {"id": f"ch_{len(self.outcomes) + 1}"}
        outcome = self.outcomes[key]
        if isinstance(outcome, PermanentFailure):
            raise outcome
        return outcome

    def look_up(self, key: str) -> Mapping[str, Any] | PermanentFailure | LookUpAnswer:
        """Return the outcome of the key's first call."""
        self.look_ups.append(key)
        return self.outcomes.get(key, LookUpAnswer.NOT_FOUND)


class CrashingDatabase:
    """A database of an attempt whose process dies around the commit of its `number`-th transaction.

    `number` counts from 0. `committed` is whether it dies after the commit.
    """

    def __init__(self, database: Database, number: int, *, committed: bool) -> None:
        self.database = database
        self.left = number
        self.committed = committed

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction, and die before or after its commit."""
        dies = self.left == 0
        self.left -= 1
        with self.database.transaction() as connection:
            yield connection
            if dies and not self.committed:
                raise Crash
        if dies:
            raise Crash

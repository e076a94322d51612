"""A space as it is thought over: its live memories in the order in which they came, their vectors and their words."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.jobs.attempt_context import Attempt
from models.memory import scan
from models.memory.scan import ScannedMemory
from models.platform.database import Connection
from pipelines.memory.words import content_words, split_words


@dataclass(frozen=True)
class Snapshot:
    """Live memories by their place, the oldest ordinal first, and a unit vector each, one a row."""

    memories: list[ScannedMemory]
    vectors: NDArray[np.float16]

    @cached_property
    def positions(self) -> dict[str, int]:
        """Id → place."""
        return {memory.id: place for place, memory in enumerate(self.memories)}

    @cached_property
    def words(self) -> list[list[str]]:
        """The words of each."""
        return [split_words(memory.text) for memory in self.memories]

    @cached_property
    def content(self) -> list[frozenset[str]]:
        """What each is about."""
        return [content_words(said) for said in self.words]


def read_snapshot(attempt: Attempt, space_id: int) -> Snapshot:
    """Read a space in batches. Raises the reason to stop."""
    with attempt.database.transaction() as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return read_in_transaction(connection, space_id, attempt)


def read_in_transaction(connection: Connection, space_id: int, attempt: Attempt | None = None) -> Snapshot:
    """A space as the connection's transaction sees it."""
    memories: list[ScannedMemory] = []
    parts: list[NDArray[np.float16]] = []
    for found, vectors in scan.batches(connection, space_id):
        if attempt is not None:
            attempt.check()
        memories += found
        parts.append(vectors)
    if not memories:
        return Snapshot([], np.zeros((0, 1), dtype=np.float16))
    return Snapshot(memories[::-1], np.concatenate(parts)[::-1])

"""Read a space for analysis: its live memories in insertion order, with their vectors and words."""

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
    """Live memories in the order of their ordinals, and a unit vector of each, one a row."""

    memories: list[ScannedMemory]
    vectors: NDArray[np.float16]

    @cached_property
    def positions(self) -> dict[str, int]:
        """The position of each memory, by id."""
        return {memory.id: position for position, memory in enumerate(self.memories)}

    @cached_property
    def words(self) -> list[list[str]]:
        """The words of each memory."""
        return [split_words(memory.text) for memory in self.memories]

    @cached_property
    def content(self) -> list[frozenset[str]]:
        """The content words of each memory."""
        return [content_words(words) for words in self.words]


def read_snapshot(attempt: Attempt, space_id: int) -> Snapshot:
    """Read a space in batches, as of one moment. Raises the reason to stop."""
    with attempt.database.transaction() as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return read_in_transaction(connection, space_id, attempt)


def read_in_transaction(connection: Connection, space_id: int, attempt: Attempt | None = None) -> Snapshot:
    """Read a space as the connection's transaction sees it."""
    memories: list[ScannedMemory] = []
    parts: list[NDArray[np.float16]] = []
    for batch, vectors in scan.batches(connection, space_id):
        if attempt is not None:
            attempt.check()
        memories += batch
        parts.append(vectors)
    if not memories:
        return Snapshot([], np.zeros((0, 1), dtype=np.float16))
    return Snapshot(memories[::-1], np.concatenate(parts)[::-1])  # batches come with the newest first

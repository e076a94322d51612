"""A space as it is thought over: its live memories in the order in which they came, their vectors and their words."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.jobs.attempt_context import Attempt
from models.memory import scan
from models.memory.scan import Surveyed
from models.platform.database import Connection
from pipelines.memory.words import content, words


@dataclass(frozen=True)
class Survey:
    """Live memories by their place, the oldest ordinal first, and a unit vector each, one a row."""

    memories: list[Surveyed]
    vectors: NDArray[np.float16]

    @cached_property
    def place(self) -> dict[str, int]:
        """Id → place."""
        return {memory.id: place for place, memory in enumerate(self.memories)}

    @cached_property
    def words(self) -> list[list[str]]:
        """The words of each."""
        return [words(memory.text) for memory in self.memories]

    @cached_property
    def content(self) -> list[frozenset[str]]:
        """What each is about."""
        return [content(said) for said in self.words]


def look(attempt: Attempt, space_id: int) -> Survey:
    """Read a space in batches. Raises the reason to stop."""
    with attempt.database.transaction() as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return read(connection, space_id, attempt)


def read(connection: Connection, space_id: int, attempt: Attempt | None = None) -> Survey:
    """A space as the connection's transaction sees it."""
    memories: list[Surveyed] = []
    parts: list[NDArray[np.float16]] = []
    for found, vectors in scan.batches(connection, space_id):
        if attempt is not None:
            attempt.check()
        memories += found
        parts.append(vectors)
    if not memories:
        return Survey([], np.zeros((0, 1), dtype=np.float16))
    return Survey(memories[::-1], np.concatenate(parts)[::-1])

"""A user's mind: memories in a space of their own, vectors from their words, and meditations without a queue."""

import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models import jobs, memory_spaces, postings
from models.attempts import Ending
from models.database import Database
from models.ids import new_id
from models.jobs import NewJob
from models.memories import NewMemory
from models.running import Attempt, Outcome
from models.settings import Settings
from pipelines.memory import writing
from pipelines.memory.meditation import run, starting
from pipelines.memory.meditation.words import words

BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)


@cache
def word_vector(word: str) -> NDArray[np.float64]:
    """A direction for each word."""
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(384)


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Vectors that are near where words are shared."""
    made = []
    for text in texts:
        vector = np.sum([word_vector(word) for word in words(text) or [""]], axis=0)
        made.append((vector / np.linalg.norm(vector)).tolist())
    return made


class Mind:
    """A user in an account of their own."""

    def __init__(self, database: Database, account_id: str, begin: Callable, settle: Callable) -> None:
        self.database = database
        self.account_id = account_id
        self.user_id = new_id("user")
        self._begin = begin
        self._settle = settle
        with database.transaction() as connection:
            connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (self.user_id, f"{self.user_id}@a.example"))
            connection.execute(
                "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'owner')", (account_id, self.user_id)
            )

    def hear(self, *texts: str, **given: Any) -> list[str]:
        """Remember texts, a day apart unless told when; the ids."""
        step, first = timedelta(days=given.pop("step", 1)), timedelta(days=given.pop("day", 0))
        speaker = given.pop("speaker", "user")
        news = [
            NewMemory(new_id("mem"), text, speaker, BEGAN + first + step * place, **given)
            for place, text in enumerate(texts)
        ]
        for start in range(0, len(news), writing.BATCH):
            writing.write(self.database, embed, self.account_id, self.user_id, news[start : start + writing.BATCH])
        return [new.id for new in news]

    def begin(self) -> tuple[str, Attempt]:
        """A meditation and the first attempt at its job."""
        meditation_id, job_id = new_id("med"), new_id("job")
        with self.database.transaction() as connection:
            found = starting.begin(connection, self.account_id, self.user_id, meditation_id, job_id)
        return found.id, self.attempt(found.job_id)

    def attempt(self, job_id: str) -> Attempt:
        """The next attempt at a job."""
        return self._begin(NewJob("meditation.run", self.account_id, id=job_id))

    def run(self, attempt: Attempt, settings: Settings | None = None) -> Outcome:
        """What the attempt comes to."""
        return run.run(settings or Settings(), embed, attempt)

    def settle(self, attempt: Attempt, ending: Ending) -> None:
        """End its job."""
        self._settle(attempt, ending)

    def meditate(self) -> tuple[str, dict[str, Any]]:
        """A whole meditation: its id and its result."""
        meditation_id, attempt = self.begin()
        ending = self.run(attempt)
        assert isinstance(ending, Ending)
        self.settle(attempt, ending)
        return meditation_id, dict(ending.result or {})

    def live(self) -> set[str]:
        """The texts that recall can find."""
        return {row["text"] for row in self.rows("SELECT text FROM memories WHERE account_id = %(account_id)s AND closed_at IS NULL")}

    def rows(self, statement: str) -> list[dict[str, Any]]:
        """Rows of the account's."""
        with self.database.connection() as connection:
            return connection.execute(statement, {"account_id": self.account_id}).fetchall()

    def job(self, job_id: str) -> jobs.Job:
        """A job as it is."""
        with self.database.connection() as connection:
            found = jobs.read(connection, job_id, self.account_id)
        assert found is not None
        return found

    def state(self) -> dict[str, Any]:
        """Row by row, all that recall looks at."""
        with self.database.connection() as connection:
            space = memory_spaces.find(connection, self.account_id, self.user_id)
            assert space is not None
            given = {"space_id": space.id}
            tables = {
                name: connection.execute(statement, given).fetchall() for name, statement in STATE.items()
            }
            entries = connection.execute(
                "SELECT term, block, entries FROM memory_postings WHERE space_id = %(space_id)s", given
            ).fetchall()
        packed = {
            (row["term"], row["block"]): sorted(np.frombuffer(row["entries"], dtype=postings.ENTRY).tolist())
            for row in entries
        }
        return {**tables, "postings": packed, "live": space.live}


STATE = {
    "memories": "SELECT * FROM memories WHERE space_id = %(space_id)s ORDER BY id",
    "vectors": "SELECT ordinal, live, embedding::text FROM memory_vectors WHERE space_id = %(space_id)s ORDER BY ordinal",
    "speakers": "SELECT name, live FROM memory_speakers WHERE space_id = %(space_id)s ORDER BY name",
    "sources": """SELECT memory_id, source_id FROM memory_sources JOIN memories ON memories.id = memory_id
                  WHERE space_id = %(space_id)s ORDER BY memory_id, source_id""",
}


@pytest.fixture
def mind(database, account, begin, settle) -> Mind:
    """An empty one."""
    return Mind(database, account, begin, settle)

"""A user's mind: memories in a space of their own, vectors from their words, and meditations without a queue."""

import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.jobs import jobs
from models.jobs.attempt_context import Attempt, Outcome, open_attempt
from models.jobs.attempts import Ending, claim
from models.jobs.jobs import NewJob, enqueue
from models.journal.writer import JournalWriter
from models.memory import meditation_changes, meditations, postings, spaces
from models.memory.meditation_changes import MeditationChange
from models.memory.meditations import Meditation
from models.memory.memories import NewMemory
from models.platform.database import Database
from models.platform.ids import new_id
from models.platform.settings import Settings
from pipelines.memory import store
from pipelines.memory.meditation import meditate, meditation_jobs, revert_meditation
from pipelines.memory.words import split_words

BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)


@cache
def word_vector(word: str) -> NDArray[np.float64]:
    """A direction for each word."""
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(384)


def embed_words(texts: Sequence[str]) -> list[list[float]]:
    """Vectors that are near where words are shared."""
    made = []
    for text in texts:
        vector = np.sum([word_vector(word) for word in split_words(text) or [""]], axis=0)
        made.append((vector / np.linalg.norm(vector)).tolist())
    return made


class MemoryUser:
    """A user in an account of their own."""

    def __init__(self, database: Database, account_id: str, begin: Callable, settle: Callable) -> None:
        self.database = database
        self.account_id = account_id
        self.user_id = new_id("user")
        self._begin = begin
        self._settle = settle
        email = f"{self.user_id}@example.com"
        with database.transaction() as connection:
            connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (self.user_id, email))
            connection.execute(JOIN, (account_id, self.user_id))

    def write(self, *texts: str, **given: Any) -> list[str]:
        """Remember texts, a day apart unless told when; the ids."""
        step, first = timedelta(days=given.pop("step", 1)), timedelta(days=given.pop("day", 0))
        speaker = given.pop("speaker", "user")
        news = [
            NewMemory(new_id("mem"), text, speaker, BEGAN + first + step * place, **given)
            for place, text in enumerate(texts)
        ]
        for start in range(0, len(news), store.BATCH):
            store.write_memories(
                self.database, embed_words, self.account_id, self.user_id, news[start : start + store.BATCH]
            )
        return [new.id for new in news]

    def start(self) -> Meditation:
        """A meditation, or the one that is unfinished."""
        with self.database.transaction() as connection:
            return meditation_jobs.enqueue_or_find(
                connection, self.account_id, self.user_id, new_id("med"), new_id("job")
            )

    def begin(self) -> tuple[str, Attempt]:
        """A meditation and the first attempt at its job."""
        found = self.start()
        return found.id, self.attempt(found.job_id)

    def read(self, meditation_id: str) -> Meditation:
        """A meditation as it is told."""
        with self.database.connection() as connection:
            found = meditations.read(connection, meditation_id, self.account_id, self.user_id)
        assert found is not None
        return found

    def changes(self, meditation_id: str) -> list[MeditationChange]:
        """What a meditation has changed."""
        with self.database.connection() as connection:
            return meditation_changes.page(connection, meditation_id, self.account_id, limit=100_000)

    def revert(self, meditation_id: str) -> Meditation:
        """Take a meditation back."""
        return revert_meditation.revert(self.database, meditation_id, self.account_id, self.user_id)

    def attempt(self, job_id: str) -> Attempt:
        """The next attempt at a job."""
        return self._begin(NewJob("meditation.run", self.account_id, id=job_id))

    def run(self, attempt: Attempt, settings: Settings | None = None) -> Outcome:
        """What the attempt comes to."""
        return meditate.run(settings or Settings(), embed_words, attempt)

    def settle(self, attempt: Attempt, ending: Ending) -> None:
        """End its job."""
        self._settle(attempt, ending)

    def meditate(self, settings: Settings | None = None) -> tuple[str, dict[str, Any]]:
        """A whole meditation: its id and its result."""
        meditation_id, attempt = self.begin()
        ending = self.run(attempt, settings)
        assert isinstance(ending, Ending)
        self.settle(attempt, ending)
        return meditation_id, dict(ending.result or {})

    def live_texts(self) -> set[str]:
        """The texts that recall can find."""
        return {row["text"] for row in self.fetch(LIVE)}

    def fetch(self, statement: str) -> list[dict[str, Any]]:
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
            space = spaces.find(connection, self.account_id, self.user_id)
            assert space is not None
            given = {"space_id": space.id}
            tables = {name: connection.execute(statement, given).fetchall() for name, statement in STATE.items()}
            entries = connection.execute(
                "SELECT term, block, entries FROM memory_postings WHERE space_id = %(space_id)s", given
            ).fetchall()
        packed = {
            (row["term"], row["block"]): sorted(np.frombuffer(row["entries"], dtype=postings.ENTRY).tolist())
            for row in entries
        }
        return {**tables, "postings": packed, "live": space.live}


JOIN = "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'owner')"

LIVE = "SELECT text FROM memories WHERE account_id = %(account_id)s AND closed_at IS NULL"

STATE = {
    "memories": "SELECT * FROM memories WHERE space_id = %(space_id)s ORDER BY id",
    "vectors": """SELECT ordinal, live, embedding::text FROM memory_vectors
                  WHERE space_id = %(space_id)s ORDER BY ordinal""",
    "speakers": "SELECT name, live FROM memory_speakers WHERE space_id = %(space_id)s ORDER BY name",
    "sources": """SELECT memory_id, source_id FROM memory_sources JOIN memories ON memories.id = memory_id
                  WHERE space_id = %(space_id)s ORDER BY memory_id, source_id""",
}


@pytest.fixture
def mind(database, account, begin, settle) -> MemoryUser:
    """An empty one."""
    return MemoryUser(database, account, begin, settle)


@pytest.fixture
def begin_in(redis_client):
    """`begin_in(database, job)` → an attempt at a job in a database of the test's own."""
    writer = JournalWriter(redis_client, lambda job_id, attempt: True)

    def begin(database: Database, job: NewJob) -> Attempt:
        with database.transaction() as connection:
            if connection.execute("SELECT 1 FROM jobs WHERE id = %s", (job.id,)).fetchone() is None:
                enqueue(connection, job)
            connection.execute("UPDATE jobs SET state = 'queued' WHERE id = %s", (job.id,))
        with database.connection() as connection:
            claimed = claim(connection, job.id, message_id=new_id("message"), worker=new_id("worker"))
        assert claimed is not None
        return open_attempt(claimed, database, redis_client, writer)

    yield begin
    writer.stop()

"""Give tests a user whose memories they write, and run meditations on them without a queue."""

import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.jobs.attempt_context import Attempt, Outcome, open_attempt
from models.jobs.attempts import Ending, claim
from models.jobs.jobs import NewJob, enqueue
from models.journal.writer import JournalWriter
from models.memory import meditation_changes, meditations, postings, spaces
from models.memory.meditation_changes import MeditationChange
from models.memory.meditations import Meditation
from models.memory.memories import NewMemory
from models.memory.spaces import SpaceKey
from models.platform.database import Database
from models.platform.ids import new_id
from models.platform.settings import Settings
from pipelines.memory import store
from pipelines.memory.meditation import meditate, meditation_jobs, revert_meditation
from pipelines.memory.words import split_words

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


@cache
def word_vector(word: str) -> NDArray[np.float64]:
    """Return a random but constant vector for a word."""
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(384)


def embed_words(texts: Sequence[str]) -> list[list[float]]:
    """Embed texts as unit vectors whose cosine grows with the words they share."""
    vectors = []
    for text in texts:
        vector = np.sum([word_vector(word) for word in split_words(text) or [""]], axis=0)
        vectors.append((vector / np.linalg.norm(vector)).tolist())
    return vectors


class MemoryUser:
    """A user with an account, whose memories a test writes and consolidates."""

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

    def write(self, *texts: str, **fields: Any) -> list[str]:
        """Write texts as memories, by default a day apart from START, and return their ids.

        step, day  the days between two memories, and from START to the first
        """
        step, first = timedelta(days=fields.pop("step", 1)), timedelta(days=fields.pop("day", 0))
        speaker = fields.pop("speaker", "user")
        new_memories = [
            NewMemory(new_id("mem"), text, speaker, START + first + step * index, **fields)
            for index, text in enumerate(texts)
        ]
        for start in range(0, len(new_memories), store.BATCH):
            batch = new_memories[start : start + store.BATCH]
            store.write_memories(self.database, embed_words, SpaceKey(self.account_id, self.user_id), batch)
        return [new.id for new in new_memories]

    def enqueue_meditation(self) -> Meditation:
        """Enqueue a meditation, or return the unfinished one."""
        with self.database.transaction() as connection:
            key = SpaceKey(self.account_id, self.user_id)
            return meditation_jobs.enqueue_or_find(connection, key, new_id("med"), new_id("job"))

    def start_meditation(self) -> tuple[str, Attempt]:
        """Enqueue a meditation, and return its id and the first attempt at its job."""
        meditation = self.enqueue_meditation()
        return meditation.id, self.next_attempt(meditation.job_id)

    def read(self, meditation_id: str) -> Meditation:
        """Read a meditation."""
        with self.database.connection() as connection:
            meditation = meditations.read(connection, meditation_id, SpaceKey(self.account_id, self.user_id))
        assert meditation is not None
        return meditation

    def changes(self, meditation_id: str) -> list[MeditationChange]:
        """Return the recorded changes of a meditation."""
        with self.database.connection() as connection:
            return meditation_changes.page(connection, meditation_id, self.account_id, limit=100_000)

    def revert(self, meditation_id: str) -> Meditation:
        """Revert a meditation."""
        return revert_meditation.revert(self.database, meditation_id, SpaceKey(self.account_id, self.user_id))

    def next_attempt(self, job_id: str) -> Attempt:
        """Claim a meditation's job for its next attempt."""
        return self._begin(NewJob("meditation.run", self.account_id, id=job_id))

    def run(self, attempt: Attempt, settings: Settings | None = None) -> Outcome:
        """Run an attempt at a meditation."""
        return meditate.run(settings or Settings(), embed_words, attempt)

    def settle(self, attempt: Attempt, ending: Ending) -> None:
        """End the job of an attempt."""
        self._settle(attempt, ending)

    def meditate(self, settings: Settings | None = None) -> tuple[str, dict[str, Any]]:
        """Run a meditation that needs one attempt, and return its id and result."""
        meditation_id, attempt = self.start_meditation()
        ending = self.run(attempt, settings)
        assert isinstance(ending, Ending)
        self.settle(attempt, ending)
        return meditation_id, dict(ending.result or {})

    def live_texts(self) -> set[str]:
        """Return the texts of the memories that are not closed."""
        return {row["text"] for row in self.fetch(LIVE)}

    def fetch(self, statement: str) -> list[dict[str, Any]]:
        """Run a statement with the parameter `account_id`, and return its rows."""
        with self.database.connection() as connection:
            return connection.execute(statement, {"account_id": self.account_id}).fetchall()

    def state(self) -> dict[str, Any]:
        """Return all rows that recall reads."""
        with self.database.connection() as connection:
            space = spaces.find(connection, SpaceKey(self.account_id, self.user_id))
            assert space is not None
            parameters = {"space_id": space.id}
            tables = {name: connection.execute(statement, parameters).fetchall() for name, statement in STATE.items()}
            blocks = connection.execute(
                "SELECT term, block, entries FROM memory_postings WHERE space_id = %(space_id)s", parameters
            ).fetchall()
        entries_by_block = {
            (row["term"], row["block"]): sorted(np.frombuffer(row["entries"], dtype=postings.ENTRY).tolist())
            for row in blocks
        }
        return {**tables, "postings": entries_by_block, "live": space.live}


JOIN = "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'owner')"

LIVE = "SELECT text FROM memories WHERE account_id = %(account_id)s AND closed_at IS NULL"

STATE = {
    "memories": "SELECT * FROM memories WHERE space_id = %(space_id)s ORDER BY id",
    "vectors": """SELECT ordinal, live, embedding::text FROM memory_vectors
                  WHERE space_id = %(space_id)s ORDER BY ordinal""",
    "passages": """SELECT ordinal, start, length, terms FROM memory_passages
                   WHERE space_id = %(space_id)s ORDER BY ordinal, start""",
    "speakers": "SELECT name, live FROM memory_speakers WHERE space_id = %(space_id)s ORDER BY name",
    "sources": """SELECT memory_id, source_id FROM memory_sources JOIN memories ON memories.id = memory_id
                  WHERE space_id = %(space_id)s ORDER BY memory_id, source_id""",
}


@pytest.fixture
def user(database, account, begin, settle) -> MemoryUser:
    """A user without memories."""
    return MemoryUser(database, account, begin, settle)


@pytest.fixture
def begin_in(redis_client):
    """`begin_in(database, job)` → the next attempt at a job in the test's own database."""
    writer = JournalWriter(redis_client, lambda *claim: True)

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

"""Creating and searching memories at size: one user's among those of others, over HTTP, with the real embedder.

The tables are filled with generated words and vectors, through the platform's own writer; queries and the memories
whose creation is timed are embedded by the bundled model.
"""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from bench.figures import Figure, at_least, at_most
from bench.harness.client import Client
from bench.progress import Progress
from bench.scenario import Bench
from models.memory import spaces, vector_search
from models.memory import vectors as memory_vectors
from models.memory.memories import NewMemory
from models.memory.spaces import Space
from models.platform.database import Connection, Database, fetch_one
from models.platform.ids import new_id
from pipelines.memory import store

#: Memories of the user, and of all users, one size after the other; the second with --full.
SIZES: Sequence[tuple[int, int]] = ((10_000, 20_000),)
FULL_SIZES: Sequence[tuple[int, int]] = ((10_000, 20_000), (100_000, 1_000_000), (1_000_000, 2_000_000))

BATCH, QUERIES, WARM_UP, NEW = 2_000, 200, 30, 50

#: Distinct words, whose frequency falls with their rank as in any language, and the words of a memory.
WORDS, LENGTHS = 20_000, (5, 25)

#: Vectors are spread around the centres of topics.
TOPICS, SPREAD, DIMENSIONS = 500, 0.6, 384

POOLS = ("memory", "recall")


def memory(bench: Bench) -> Sequence[Figure]:
    """Measure writing and searching, size by size, each with a user of its own."""
    generator = Generator(random.Random(7), np.random.default_rng(7))
    figures: list[Figure] = []
    with (
        bench.stack.platform(engine="scripted", pools=POOLS) as platform,
        closing(Database(platform.settings.postgres_dsn)) as database,
    ):
        for account, (own, total) in enumerate(FULL_SIZES if bench.full else SIZES):
            client = platform.client(account)
            client.post("/v1/memories", {"text": "the first one"})  # creates the space
            with database.connection() as connection:
                space = newest_space(connection)
            figures += SizeMeasurement(bench.progress, database, client, space, generator).figures(own, total)
    return figures


@dataclass(frozen=True, slots=True)
class SizeMeasurement:
    """The measurement of one user's memories."""

    progress: Progress
    database: Database
    client: Client
    space: Space
    generator: "Generator"

    def figures(self, own: int, total: int) -> Iterator[Figure]:
        """Fill the tables to this size, and measure writing and searching."""
        size = f"{own:,} memories among {total:,}"
        rates = fill(self.progress, self.database, self.space, self.generator, own)
        copy_to_others(self.progress, self.database, self.space, own, total)
        shares = recall_of_codes(self.database, self.space.id, self.generator)
        self.client.close()  # the server has closed the connection, which was idle for long; the next request opens one
        searches = search(self.progress, self.client, self.generator)
        yield Figure(f"search of {size}, p50", "ms", searches)
        yield Figure(f"search of {size}, p95", "ms", searches, at_most(40) if own <= 100_000 else None, quantile=0.95)
        created = create(self.progress, self.client, self.generator)
        yield Figure("POST /v1/memories of one → it can be found", "ms", created)
        yield Figure("memories written by the platform's writer, vectors given", "/s", rates)
        yield Figure(f"20 nearest vectors that the search of {size} finds", "x", shares, at_least(0.98))


class Generator:
    """Generates texts and vectors, the same in each run."""

    def __init__(self, words: random.Random, vectors: np.random.Generator) -> None:
        self._random, self._vectors = words, vectors
        letters = "abcdefghijklmnopqrstuvwxyz"
        self._words = ["".join(words.choices(letters, k=words.randint(3, 9))) for _ in range(WORDS)]
        self._weights = np.cumsum(1 / np.arange(2, WORDS + 2)).tolist()
        self._centres = vectors.standard_normal((TOPICS, DIMENSIONS))

    def text(self) -> str:
        """Return a memory's text."""
        return " ".join(self._random.choices(self._words, cum_weights=self._weights, k=self._random.randint(*LENGTHS)))

    def query(self) -> str:
        """Return a query about two things, as long as a person's: generated words have many tokens."""
        first, second = self._random.choices(self._words, cum_weights=self._weights, k=2)
        return f"When did Ada tell me about the {first} that she wanted to buy for her {second}?"

    def vector(self) -> list[float]:
        """Return a unit vector near the centre of a topic."""
        noise = self._vectors.standard_normal(DIMENSIONS)
        vector = self._centres[self._vectors.integers(TOPICS)] * (1 - SPREAD) + noise * SPREAD
        unit: list[float] = (vector / np.linalg.norm(vector)).tolist()
        return unit

    def batch(self, begin: int) -> Iterator[tuple[NewMemory, list[float]]]:
        """Generate memories of conversations of a hundred turns, a minute apart."""
        start = datetime(2025, 1, 1, tzinfo=UTC)
        for number in range(begin, begin + BATCH):
            moment = start + timedelta(minutes=number)
            speaker = ("Ada", "Ben")[number % 2]
            new = NewMemory(new_id("mem"), self.text(), speaker, moment, conversation_id=f"talk {number // 100}")
            yield new, self.vector()


def newest_space(connection: Connection) -> Space:
    """Return the space that was created last."""
    row = fetch_one(connection, "SELECT max(id) AS id FROM memory_spaces")
    space = spaces.read(connection, row["id"]) if row else None
    assert space is not None
    return space


def fill(progress: Progress, database: Database, space: Space, generator: Generator, count: int) -> list[float]:
    """Write memories; returns memories a second of each batch."""
    rates = []
    for begin in range(0, count, BATCH):
        progress.step(begin, count, "memories written")
        batch = list(generator.batch(begin))
        began = time.monotonic()
        with database.transaction() as connection:
            store.insert_memories(connection, store.lock_space(connection, space.id), batch)
        rates.append(BATCH / (time.monotonic() - began))
    return rates


USER = """
WITH person AS (INSERT INTO users (id, email) VALUES (%(user_id)s, %(user_id)s || '@example.com') RETURNING id)
INSERT INTO memory_spaces (account_id, user_id, next_ordinal, live, term_version)
SELECT account_id, person.id, next_ordinal, live, term_version FROM memory_spaces, person
WHERE memory_spaces.id = %(space_id)s
RETURNING memory_spaces.id
"""

ROWS = """
INSERT INTO memories (id, account_id, user_id, space_id, ordinal, text, speaker, occurred_at, conversation_id, terms)
SELECT 'mem_' || md5(id || %(user_id)s), account_id, %(user_id)s, %(copy)s, ordinal, text, speaker, occurred_at,
       conversation_id, terms
FROM memories WHERE space_id = %(space_id)s
"""

VECTORS = """
INSERT INTO memory_vectors (space_id, ordinal, embedding)
SELECT %(copy)s, ordinal, embedding FROM memory_vectors WHERE space_id = %(space_id)s
"""

POSTINGS = """
INSERT INTO memory_postings (space_id, term, block, entries)
SELECT %(copy)s, term, block, entries FROM memory_postings WHERE space_id = %(space_id)s
"""

CODES = """
INSERT INTO memory_vector_codes (space_id, block, codes, version)
SELECT %(copy)s, block, codes, gen_random_uuid() FROM memory_vector_codes WHERE space_id = %(space_id)s
"""


def copy_to_others(progress: Progress, database: Database, space: Space, own: int, total: int) -> None:
    """Copy the memories to new users, until all users together have `total`."""
    with database.connection() as connection:
        row = fetch_one(connection, "SELECT count(*) AS memories FROM memories")
    for number in range((total - (row["memories"] if row else 0)) // own):
        progress.report(f"memories of others, {number * own:,} written")
        parameters = {"user_id": new_id("user"), "space_id": space.id}
        with database.transaction() as connection:
            user = fetch_one(connection, USER, parameters)
            for statement in (ROWS, VECTORS, POSTINGS, CODES):
                connection.execute(statement, {**parameters, "copy": user and user["id"]})
    with database.connection() as connection:
        connection.execute("VACUUM ANALYZE")


def recall_of_codes(database: Database, space_id: int, generator: Generator) -> list[float]:
    """Compare the search with the exact 20 nearest of some vectors; returns the share that it finds of each."""
    shares = []
    for _ in range(50):
        vector = generator.vector()
        with database.connection() as connection:
            space = spaces.read(connection, space_id)
            assert space is not None
            exact = memory_vectors.search_exact(connection, space_id, vector, 20)
            found = vector_search.nearest(connection, space, vector, 100)
        shares.append(len({ordinal for ordinal, _ in exact} & {ordinal for ordinal, _ in found[:20]}) / 20)
    return shares


def search(progress: Progress, client: Client, generator: Generator) -> list[float]:
    """Search one query after the other; returns the milliseconds of each."""
    times = []
    for number in range(-WARM_UP, QUERIES):
        progress.step(max(number, 0), QUERIES, "queries")
        query = {"query": generator.query(), "limit": 10}
        began = time.monotonic()
        client.post("/v1/memories/search", query)
        times.append((time.monotonic() - began) * 1000)
    return times[WARM_UP:]


def create(progress: Progress, client: Client, generator: Generator) -> list[float]:
    """Create memories; returns the milliseconds until each can be found."""
    times = []
    for number in range(NEW):
        progress.step(number, NEW, "memories created over HTTP")
        began = time.monotonic()
        client.post("/v1/memories", {"text": generator.text(), "speaker": "Ada", "conversation_id": "today"})
        times.append((time.monotonic() - began) * 1000)
    return times

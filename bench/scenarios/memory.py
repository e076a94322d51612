"""Remembering and searching at size: a user's memories among those of others, over HTTP, with the real embedder.

What fills the tables is made up, words and vectors both, and goes in through the platform's own writer; questions and
the memories that are timed are embedded by the bundled model.
"""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from bench.bench import Bench
from bench.client import Client
from bench.figures import Figure, at_least, at_most
from bench.progress import Progress
from models.memory import spaces, vector_indexes
from models.memory import vectors as memory_vectors
from models.memory.memories import Filters, NewMemory
from models.memory.spaces import Space
from models.platform.database import Connection, Database, one
from models.platform.ids import new_id
from pipelines.memory import writing

#: Memories of the user, and of everybody then; with --full.
SIZES: Sequence[tuple[int, int]] = ((10_000, 20_000),)
FULL_SIZES: Sequence[tuple[int, int]] = ((10_000, 20_000), (100_000, 1_000_000), (1_000_000, 2_000_000))

BATCH, QUESTIONS, WARM_UP, NEW = 2_000, 200, 30, 50

#: How often a word comes falls with its rank, as in any language.
WORDS, LENGTHS = 20_000, (5, 25)

#: Topics: vectors lie around their centres.
TOPICS, SPREAD, DIMENSIONS = 500, 0.6, 384

POOLS = ("memory", "recall")


def memory(bench: Bench) -> Sequence[Figure]:
    """How fast memories are written and found, size by size, each of a user of its own."""
    made = Made(random.Random(7), np.random.default_rng(7))
    figures: list[Figure] = []
    with bench.stack.platform(engine="scripted", pools=POOLS) as platform:
        database = Database(platform.settings.postgres_dsn)
        for account, (mine, everybody) in enumerate(FULL_SIZES if bench.full else SIZES):
            client = platform.client(account)
            client.post("/v1/memories", {"text": "the first one"})  # makes the space
            with database.connection() as connection:
                space = newest(connection)
            figures += Sized(bench.progress, database, client, space, made).figures(mine, everybody)
        database.close()
    return figures


@dataclass(frozen=True, slots=True)
class Sized:
    """One user's memories, and how they grow to a size."""

    progress: Progress
    database: Database
    client: Client
    space: Space
    made: "Made"

    def figures(self, mine: int, everybody: int) -> Iterator[Figure]:
        """What writing and finding cost at this size."""
        size = f"{mine:,} memories among {everybody:,}"
        rate = fill(self.progress, self.database, self.space, self.made, mine)
        copy(self.progress, self.database, self.space, mine, everybody)
        built = index(self.progress, self.database, self.space) if mine > vector_indexes.MOST else []
        found = recall_of(self.database, self.space, self.made) if built else []
        searches = searched(self.progress, self.client, self.made)
        yield Figure(f"search of {size}, p50", "ms", searches)
        yield Figure(f"search of {size}, p95", "ms", searches, at_most(50) if mine <= 100_000 else None, quantile=0.95)
        written = remembered(self.progress, self.client, self.made)
        yield Figure("POST /v1/memories of one → it can be found", "ms", written)
        yield Figure("memories written by the platform's writer, vectors given", "/s", rate)
        if built:
            yield Figure("the space's own index built", "s", built)
            yield Figure("of the exact 10 nearest, found by the index", "x", found, at_least(0.95))


class Made:
    """Made-up texts and vectors, the same in each run."""

    def __init__(self, words: random.Random, vectors: np.random.Generator) -> None:
        self._random, self._vectors = words, vectors
        letters = "abcdefghijklmnopqrstuvwxyz"
        self._words = ["".join(words.choices(letters, k=words.randint(3, 9))) for _ in range(WORDS)]
        self._weights = np.cumsum(1 / np.arange(2, WORDS + 2)).tolist()
        self._centres = vectors.standard_normal((TOPICS, DIMENSIONS))

    def text(self) -> str:
        """A memory."""
        return " ".join(self._random.choices(self._words, cum_weights=self._weights, k=self._random.randint(*LENGTHS)))

    def question(self) -> str:
        """A question about two things, as long as people's are: made-up words have many tokens."""
        one, other = self._random.choices(self._words, cum_weights=self._weights, k=2)
        return f"When did Ada tell me about the {one} that she wanted to buy for her {other}?"

    def vector(self) -> list[float]:
        """Its meaning."""
        noise = self._vectors.standard_normal(DIMENSIONS)
        vector = self._centres[self._vectors.integers(TOPICS)] * (1 - SPREAD) + noise * SPREAD
        made: list[float] = (vector / np.linalg.norm(vector)).tolist()
        return made

    def batch(self, begin: int) -> Iterator[tuple[NewMemory, list[float]]]:
        """Memories of conversations of a hundred turns, a minute apart."""
        start = datetime(2025, 1, 1, tzinfo=UTC)
        for number in range(begin, begin + BATCH):
            moment = start + timedelta(minutes=number)
            speaker = ("Ada", "Ben")[number % 2]
            new = NewMemory(new_id("mem"), self.text(), speaker, moment, conversation_id=f"talk {number // 100}")
            yield new, self.vector()


def newest(connection: Connection) -> Space:
    """The space that was made last."""
    row = one(connection, "SELECT max(id) AS id FROM memory_spaces")
    space = spaces.read(connection, row["id"]) if row else None
    assert space is not None
    return space


def fill(progress: Progress, database: Database, space: Space, made: Made, count: int) -> list[float]:
    """Write so many memories; memories a second of each batch."""
    rates = []
    for begin in range(0, count, BATCH):
        progress.step(begin, count, "memories written")
        news = list(made.batch(begin))
        began = time.perf_counter()
        with database.transaction() as connection:
            writing.insert(connection, writing.locked(connection, space.id), news)
        rates.append(BATCH / (time.perf_counter() - began))
    return rates


USER = """
WITH person AS (INSERT INTO users (id, email) VALUES (%(user_id)s, %(user_id)s || '@example.com') RETURNING id)
INSERT INTO memory_spaces (account_id, user_id, next_ordinal, live)
SELECT account_id, person.id, next_ordinal, live FROM memory_spaces, person WHERE memory_spaces.id = %(space_id)s
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


def copy(progress: Progress, database: Database, space: Space, mine: int, everybody: int) -> None:
    """Give others the same memories, until everybody has so many."""
    with database.connection() as connection:
        there = one(connection, "SELECT count(*) AS memories FROM memories")
    for number in range((everybody - (there["memories"] if there else 0)) // mine):
        progress.say(f"memories of others, {number * mine:,} written")
        user_id = new_id("user")
        with database.transaction() as connection:
            given = {"user_id": user_id, "space_id": space.id}
            row = one(connection, USER, given)
            for statement in (ROWS, VECTORS, POSTINGS):
                connection.execute(statement, {**given, "copy": row and row["id"]})
    with database.connection() as connection:
        connection.execute("VACUUM ANALYZE")


def index(progress: Progress, database: Database, space: Space) -> list[float]:
    """Build the space's own index, as its job does; how long that takes."""
    progress.say("building the index")
    began = time.perf_counter()
    with database.connection() as connection:
        vector_indexes.build(connection, space.id)
        spaces.set_indexed(connection, space.id, stands=True)
    return [time.perf_counter() - began]


def recall_of(database: Database, space: Space, made: Made) -> list[float]:
    """What share of the exact ten nearest the index finds, for some vectors."""
    shares = []
    for _ in range(50):
        vector = made.vector()
        with database.connection() as connection:
            exact = memory_vectors.exact(connection, space.id, vector, 10)
        with database.transaction() as connection:
            found = memory_vectors.approximate(connection, space.id, vector, Filters(), 100)
        shares.append(len({ordinal for ordinal, _ in exact} & {ordinal for ordinal, _ in found[:10]}) / 10)
    return shares


def searched(progress: Progress, client: Client, made: Made) -> list[float]:
    """Milliseconds of questions, one after another."""
    times = []
    for number in range(-WARM_UP, QUESTIONS):
        progress.step(max(number, 0), QUESTIONS, "questions")
        question = {"query": made.question(), "limit": 10}
        began = time.perf_counter()
        client.post("/v1/memories/search", question)
        times.append((time.perf_counter() - began) * 1000)
    return times[WARM_UP:]


def remembered(progress: Progress, client: Client, made: Made) -> list[float]:
    """Milliseconds until a memory can be found."""
    times = []
    for number in range(NEW):
        progress.step(number, NEW, "memories through the door")
        began = time.perf_counter()
        client.post("/v1/memories", {"text": made.text(), "speaker": "Ada", "conversation_id": "today"})
        times.append((time.perf_counter() - began) * 1000)
    return times

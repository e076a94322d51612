"""Meditation over 10,000 memories of one user: duration, memory, and the precision of what it finds.

Texts are combined from parts, vectors are the bundled model's. Planted among them are repetitions and contradictions,
and traps: texts that look like a repetition and are none (another number, a negation, another colour, another day).
"""

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.figures import Figure, at_least, at_most
from bench.harness.client import Client
from bench.harness.sse import CheckFailed
from bench.harness.waiting import wait_until
from bench.scenario import Bench
from bench.scenarios.memory import newest_space
from models.memory.memories import NewMemory
from models.platform.database import Database, fetch_all
from models.platform.ids import new_id
from pipelines.inference.llamacpp.embedder import load_embedder
from pipelines.memory import store

#: Memories in all, memories of each planted kind, and memories that are embedded and inserted together.
MEMORIES, PLANTED, BATCH = 10_000, 250, 500

#: Seconds in which a meditation must end.
PATIENCE = 600.0

PEOPLE = ("my sister", "my neighbour", "Ana", "Tariq", "my boss", "Joan", "my cousin Leo", "Ruth", "the plumber",
          "Ines")  # fmt: skip
VERBS = ("showed me", "asked me about", "lost", "repaired", "sold", "talked for an hour about", "dreams of", "broke")
THINGS = ("a violin", "an old map", "the garden fence", "a telescope", "a recipe for soup", "the kitchen sink",
          "a novel", "a red scarf", "the train tickets", "a chess set", "a bicycle", "the tax papers")  # fmt: skip
PLACES = ("in Lisbon", "at the office", "by the river", "on the train", "at the market", "in the cellar", "at school",
          "in Graz", "near the bridge", "at the lake")  # fmt: skip
TIMES = ("before breakfast", "on the way home", "during the storm", "over lunch", "while it rained", "after work")
CITIES = ("Lisbon", "Porto", "Graz", "Vienna", "Oslo", "Turin", "Ghent", "Leeds", "Quito", "Osaka")
START = datetime(2025, 1, 1, tzinfo=UTC)

CLOSED = "SELECT memory_id, reason FROM meditation_changes WHERE meditation_id = %(id)s AND action = 'closed'"


@dataclass(slots=True)
class MemorySet:
    """Memories to write, and what a meditation should find: the ids of repetitions and of contradicted facts."""

    memories: list[NewMemory] = field(default_factory=list)
    repeated: set[str] = field(default_factory=set)
    contradicted: set[str] = field(default_factory=set)

    def add(self, text: str, day: float, *, speaker: str = "user", **options: Any) -> str:
        """Add a memory of a day; returns its id."""
        memory = NewMemory(new_id("mem"), text, speaker, START + timedelta(days=day), **options)
        self.memories.append(memory)
        return memory.id


def memory_set(count: int) -> MemorySet:
    """Generate memories, the same in each run except for their ids."""
    dataset, rng = MemorySet(), random.Random(11)
    for number in range(PLANTED):
        _plant(dataset, rng, number)
    while len(dataset.memories) < count:
        parts = (rng.choice(part) for part in (PEOPLE, VERBS, THINGS, PLACES, TIMES))
        text, conversation = f"{' '.join(parts)}, {rng.randint(2, 99)} days ago.", f"talk {len(dataset.memories) // 50}"
        dataset.add(text, rng.uniform(0, 400), conversation_id=conversation)
    rng.shuffle(dataset.memories)
    return dataset


def _plant(dataset: MemorySet, rng: random.Random, number: int) -> None:
    """Add one repetition, one contradiction and one trap of each kind."""
    thing, place, day = THINGS[number % len(THINGS)], PLACES[number % len(PLACES)], rng.uniform(0, 300)
    dataset.repeated.add(dataset.add(f"I own {thing} that is {number} years old and is kept {place}.", day))
    dataset.add(f"I really own {thing} that is {number} years old, and is kept {place}!", day + 40)
    name = f"{rng.choice('BCDFGKLMPRST')}{rng.choice('aeiou')}{number}"
    old, new = rng.sample(CITIES, 2)
    dataset.contradicted.add(dataset.add(f"{name} lives in {old}.", day, kind="fact", speaker=""))
    dataset.add(f"{name} lives in {new}.", day + 50, kind="fact", speaker="")
    traps = [
        (f"I need {number + 300} grams of flour for the bread that {name} likes.",
         f"I need {number + 301} grams of flour for the bread that {name} likes."),
        (f"{name} is allergic to walnuts and to dust.", f"{name} is not allergic to walnuts and to dust."),
        (f"We went swimming with {name} {place}.", f"We went swimming with {name} {place}."),
        (f"{name} likes the green lamp {place}.", f"{name} likes the white lamp {place}."),
    ]  # fmt: skip
    for first, second in traps:
        dataset.add(first, day)
        dataset.add(second, day + 9)


def meditation(bench: Bench) -> Sequence[Figure]:
    """Measure one meditation, and its revert."""
    with (
        bench.stack.platform(engine="scripted", pools=("memory",)) as platform,
        closing(Database(platform.settings.postgres_dsn)) as database,
    ):
        platform.client().post("/v1/memories", {"text": "the first one"})  # creates the space
        dataset = memory_set(MEMORIES)
        write(bench, database, dataset)
        worker = next(child for name, child in platform.children.items() if name.startswith("worker"))
        before = peak_memory(worker.pid)
        client = platform.client()  # the first connection was idle for too long
        ended = run_meditation(client)
        growth = peak_memory(worker.pid) - before
        closed = closed_memories(database, ended["id"])
        reverts = revert(client, ended)
    recall = ended["report"]["recall"]
    return [
        Figure(f"meditation over {MEMORIES:,} memories", "s", [ended["seconds"]], at_most(10)),
        Figure("memory that the worker needs for it", "MB", [growth / 1e6]),
        Figure(f"recall of its {recall['probes']} probes before", "x", [recall["before"]]),
        Figure("recall of its probes after; a lower value rolls it back", "x", [recall["after"]]),
        *(applied_figures(closed, dataset, reverts) if reverts else []),
    ]


def revert(client: Client, ended: Mapping[str, Any]) -> list[float]:
    """Revert a meditation; returns the seconds, or none where the platform rolled it back because recall would fall."""
    if ended["outcome"] == "would_harm":
        return []
    if ended["outcome"] != "applied":
        raise CheckFailed(f"the meditation has the outcome {ended['outcome']}: {ended['report']}")
    began = time.monotonic()
    client.post(f"/v1/meditations/{ended['id']}/revert", {})
    return [time.monotonic() - began]


def applied_figures(closed: Mapping[str, set[str]], dataset: MemorySet, reverts: Sequence[float]) -> list[Figure]:
    """Return the figures of a meditation that was applied. Of two repetitions either may be closed."""
    figures = [Figure("revert", "s", reverts)]
    for name, found, planted in (
        ("repetitions", closed["repeats"], dataset.repeated),
        ("contradictions", closed["contradicted"], dataset.contradicted),
    ):
        right = len(found & planted)
        figures.append(Figure(f"{name} closed: precision", "x", [right / max(1, len(found))], at_least(0.99)))
        figures.append(Figure(f"{name} closed: recall", "x", [right / len(planted)]))
    return figures


def write(bench: Bench, database: Database, dataset: MemorySet) -> None:
    """Embed and insert the memories, as the platform does."""
    embedder = load_embedder(bench.stack.settings)
    with database.connection() as connection:
        space = newest_space(connection)
    for begin in range(0, len(dataset.memories), BATCH):
        bench.progress.step(begin, len(dataset.memories), "memories embedded")
        batch = dataset.memories[begin : begin + BATCH]
        vectors = embedder.embed([memory.text for memory in batch])
        with database.transaction() as connection:
            store.insert_memories(
                connection, store.lock_space(connection, space.id), list(zip(batch, vectors, strict=True))
            )


def run_meditation(client: Client) -> dict[str, Any]:
    """Run a meditation to its end; returns its object, with the `seconds` that it took."""
    began = time.monotonic()
    path = f"/v1/meditations/{client.post('/v1/meditations', {})['id']}"

    def ended() -> dict[str, Any] | None:
        state = client.get(path)
        return state if state["status"] not in ("queued", "in_progress") else None

    state = wait_until(ended, PATIENCE, interval=0.1, what="the end of the meditation")
    return {**(state or {}), "seconds": time.monotonic() - began}


def peak_memory(pid: int) -> float:
    """Return the most bytes that a process has had in memory so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * float(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def closed_memories(database: Database, meditation_id: str) -> Mapping[str, set[str]]:
    """Return the ids of the memories that a meditation closed, by reason."""
    closed: dict[str, set[str]] = {"repeats": set(), "contradicted": set()}
    with database.connection() as connection:
        for row in fetch_all(connection, CLOSED, {"id": meditation_id}):
            closed[row["reason"]].add(row["memory_id"])
    return closed

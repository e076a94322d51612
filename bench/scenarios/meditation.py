"""Meditation over 10,000 memories of one user: how long, in how much memory, and how much of what it finds is right.

Texts are made from parts, vectors are the bundled model's. Planted among them are repetitions and contradictions, and
traps: what looks like a repetition and is none (another number, a negation, another colour, an event of another day).
"""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.bench import Bench
from bench.client import Broken, Client
from bench.figures import Figure, at_least, at_most
from bench.scenarios.memory import newest
from models.memory.memories import NewMemory
from models.platform.database import Database, all_of
from models.platform.ids import new_id
from pipelines.inference.embedder import load_embedder
from pipelines.memory import writing

MEMORIES, EACH, BATCH = 10_000, 250, 500

#: Seconds until a meditation must have ended.
PATIENCE = 600.0

PEOPLE = (
    "my sister",
    "my neighbour",
    "Ana",
    "Tariq",
    "my boss",
    "Joan",
    "my cousin Leo",
    "Ruth",
    "the plumber",
    "Ines",
)
VERBS = ("showed me", "asked me about", "lost", "repaired", "sold", "talked for an hour about", "dreams of", "broke")
THINGS = ("a violin", "an old map",
          "the garden fence", "a telescope", "a recipe for soup", "the kitchen sink", "a novel",
          "a red scarf", "the train tickets", "a chess set", "a bicycle", "the tax papers")  # fmt: skip
PLACES = ("in Lisbon", "at the office", "by the river", "on the train", "at the market", "in the cellar", "at school",
          "in Graz", "near the bridge", "at the lake")  # fmt: skip
WHEN = ("before breakfast", "on the way home", "during the storm", "over lunch", "while it rained", "after work")
CITIES = ("Lisbon", "Porto", "Graz", "Vienna", "Oslo", "Turin", "Ghent", "Leeds", "Quito", "Osaka")
BEGAN = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Planted:
    """What is written, and what should come of it: the ids of repetitions and of facts that no longer hold."""

    news: list[NewMemory] = field(default_factory=list)
    repeated: set[str] = field(default_factory=set)
    contradicted: set[str] = field(default_factory=set)

    def say(self, text: str, day: float, **given: Any) -> str:
        """One more memory."""
        moment = BEGAN + timedelta(days=day)
        new = NewMemory(new_id("mem"), text, given.pop("speaker", "user"), moment, **given)
        self.news.append(new)
        return new.id


def planted(count: int) -> Planted:
    """So many memories, the same in each run but for their ids."""
    made, chance = Planted(), random.Random(11)
    for number in range(EACH):
        _plant(made, chance, number)
    while len(made.news) < count:
        said = (chance.choice(part) for part in (PEOPLE, VERBS, THINGS, PLACES, WHEN))
        text, talk = f"{' '.join(said)}, {chance.randint(2, 99)} days ago.", f"talk {len(made.news) // 50}"
        made.say(text, chance.uniform(0, 400), conversation_id=talk)
    chance.shuffle(made.news)
    return made


def _plant(made: Planted, chance: random.Random, number: int) -> None:
    """One of each."""
    thing, place, day = THINGS[number % len(THINGS)], PLACES[number % len(PLACES)], chance.uniform(0, 300)
    made.repeated.add(made.say(f"I own {thing} that is {number} years old and is kept {place}.", day))
    made.say(f"I really own {thing} that is {number} years old, and is kept {place}!", day + 40)
    name = f"{chance.choice('BCDFGKLMPRST')}{chance.choice('aeiou')}{number}"
    old, new = chance.sample(CITIES, 2)
    made.contradicted.add(made.say(f"{name} lives in {old}.", day, kind="fact", speaker=""))
    made.say(f"{name} lives in {new}.", day + 50, kind="fact", speaker="")
    # Traps.
    made.say(f"I need {number + 300} grams of flour for the bread that {name} likes.", day)
    made.say(f"I need {number + 301} grams of flour for the bread that {name} likes.", day + 9)
    made.say(f"{name} is allergic to walnuts and to dust.", day)
    made.say(f"{name} is not allergic to walnuts and to dust.", day + 9)
    made.say(f"We went swimming with {name} {place}.", day)
    made.say(f"We went swimming with {name} {place}.", day + 9)
    made.say(f"{name} likes the green lamp {place}.", day)
    made.say(f"{name} likes the white lamp {place}.", day + 9)


def meditation(bench: Bench) -> Sequence[Figure]:
    """One meditation, and its revert."""
    with bench.stack.platform(engine="scripted", pools=("memory",)) as platform:
        database = Database(platform.settings.postgres_dsn)
        platform.client().post("/v1/memories", {"text": "the first one"})  # makes the space
        made = planted(MEMORIES)
        write(bench, database, made)
        worker = next(child for name, child in platform.children.items() if name.startswith("worker"))
        before = most_memory(worker.pid)
        client = platform.client()  # the first one has been idle for too long
        done = meditated(client)
        grown = most_memory(worker.pid) - before
        closed = closed_by(database, done["id"])
        reverts = reverted(client, done)
        database.close()
    report = done["report"]
    found = report["recall"]
    return [
        Figure(f"meditation over {MEMORIES:,} memories", "s", [done["seconds"]], at_most(60)),
        Figure("memory that the worker needs for it", "MB", [grown / 1e6]),
        Figure(f"recall of its {found['probes']} probes before", "x", [found["before"]]),
        Figure("recall of its probes after; it takes all back where that falls", "x", [found["after"]]),
        *(applied(closed, made, reverts) if reverts else []),
    ]


def reverted(client: Client, done: Mapping[str, Any]) -> list[float]:
    """Seconds that the revert takes; none where the platform has left all as it was, for recall would have fallen."""
    if done["outcome"] == "would_harm":
        return []
    if done["outcome"] != "applied":
        raise Broken(f"the meditation came to {done['outcome']}: {done['report']}")
    began = time.perf_counter()
    client.post(f"/v1/meditations/{done['id']}/revert", {})
    return [time.perf_counter() - began]


def applied(closed: Mapping[str, set[str]], made: Planted, reverts: Sequence[float]) -> list[Figure]:
    """How much of what it has closed is right."""
    return [
        Figure("revert", "s", reverts),
        *_shares("repetitions", closed["repeats"], made.repeated),
        *_shares("contradictions", closed["contradicted"], made.contradicted),
    ]


def write(bench: Bench, database: Database, made: Planted) -> None:
    """Write all of it, as the platform does."""
    embedder = load_embedder(bench.stack.settings)
    with database.connection() as connection:
        space = newest(connection)
    for begin in range(0, len(made.news), BATCH):
        bench.progress.step(begin, len(made.news), "memories embedded")
        news = made.news[begin : begin + BATCH]
        vectors = embedder.embed([new.text for new in news])
        with database.transaction() as connection:
            writing.insert(connection, writing.locked(connection, space.id), list(zip(news, vectors, strict=True)))


def meditated(client: Client) -> dict[str, Any]:
    """The meditation as it has ended, and how many `seconds` that took."""
    began = time.perf_counter()
    path = f"/v1/meditations/{client.post('/v1/meditations', {})['id']}"
    while time.perf_counter() < began + PATIENCE:
        found: dict[str, Any] = client.get(path)
        if found["status"] not in ("queued", "in_progress"):
            return {**found, "seconds": time.perf_counter() - began}
        time.sleep(0.1)
    raise Broken(f"the meditation has not ended after {PATIENCE:g} s")


def most_memory(pid: int | None) -> float:
    """The most bytes that a process has had in memory so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * float(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


CLOSED = "SELECT memory_id, reason FROM meditation_changes WHERE meditation_id = %(id)s AND action = 'closed'"


def closed_by(database: Database, meditation_id: str) -> Mapping[str, set[str]]:
    """Reason → the ids of what was closed for it."""
    found: dict[str, set[str]] = {"repeats": set(), "contradicted": set()}
    with database.connection() as connection:
        for row in all_of(connection, CLOSED, {"id": meditation_id}):
            found[row["reason"]].add(row["memory_id"])
    return found


def _shares(what: str, found: set[str], expected: set[str]) -> list[Figure]:
    """Precision and recall of what it has closed. Of two that say the same either may be closed."""
    right = len(found & expected)
    return [
        Figure(f"{what}: of those closed, planted", "x", [right / max(1, len(found))], at_least(0.99)),
        Figure(f"{what}: of those planted, closed", "x", [right / len(expected)]),
    ]

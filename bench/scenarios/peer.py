"""Another platform beside ours, on the same turns of the same model, by turns: Aegra, whose promises are the nearest.

Both ask one scripted endpoint over HTTP, and stand at once on the same Postgres and Redis, each idle while the other
is measured. Each has a door and two workers. `docs/performance.md` says how the peer is set up.
Where it can't be installed the scenario fails with the reason, and the others don't.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import psycopg

from bench.bench import Bench
from bench.client import Broken, Client, Heard, check, script, text_of
from bench.figures import Figure, at_least, at_most
from bench.load import closed_loop
from bench.peers import runs
from bench.peers.environment import environment
from bench.peers.instances import AT_ONCE, WORKERS, Endpoint, Peer, endpoint, peer
from bench.peers.limit import answers_a_second
from bench.peers.runs import Following, Runs
from bench.scenarios.cost import seconds as cpu_seconds
from bench.scenarios.latency import first_delta
from bench.scenarios.recovery import HEARD, RATE, TOKENS, amiss, killed_in_mid_answer, start_again
from bench.stack import FORGETFUL, Platform, Stack
from models.platform.database import Database

#: Rounds of ours and theirs; the first warms up. Turns one by one in each, then turns of all clients at once.
ROUNDS, SINGLE, TOGETHER = 3, 20, {"ours": 400, "theirs": 64}

CLIENTS = WORKERS * AT_ONCE

#: What is said fast, and slowly enough to be killed in its middle.
FAST, SLOW = "tokens=20,rate=0", f"tokens={TOKENS},rate={RATE}"

#: Kills of each; the peer's take most of a minute.
KILLS, MANY_KILLS = 2, 8

#: Seconds after a kill in which what the dead worker had sent may still come.
ON_ITS_WAY = 0.5

RESTARTED = "sangha:answer.restarted"

CLAIMED_BY = "SELECT claimed_by FROM runs WHERE run_id = %s"


@dataclass(slots=True)
class Samples:
    """Of one platform: milliseconds to the first event and text; of each round turns a second, CPU milliseconds a turn,
    and how many streams lacked text or their end; and its kills."""

    first_events: list[float] = field(default_factory=list)
    first_texts: list[float] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    lacking: list[int] = field(default_factory=list)
    kills: "list[Kill]" = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Kill:
    """Seconds to the next token, none if there was none; tokens lost and repeated; whether the stream ended well."""

    seconds: float | None
    lost: int
    repeated: int
    ended: bool


def beside(bench: Bench) -> Sequence[Figure]:
    """Ours ÷ theirs, and what a kill shows."""
    python = environment(bench.progress.say)
    ours, theirs = Samples(), Samples()
    with endpoint(bench.stack) as model:
        bench.progress.say("measuring the endpoint")
        limit = [answers_a_second(model.address, CLIENTS, FAST) for _ in range(ROUNDS)]
        with both(bench, python, model, FAST) as (platform, its):
            measure_turns(bench, platform, its, ours, theirs)
        with bench.stack.platform(engine="scripted", script=FAST, workers=WORKERS, slots=AT_ONCE) as platform:
            in_process = [our_speed(bench, platform, number) for number in range(ROUNDS + 1)][1:]
        with both(bench, python, model, SLOW) as (platform, its):
            measure_kills(bench, platform, its, ours, theirs)
    return [*of_turns(ours, theirs, in_process, limit), *of_kills(ours, theirs)]


@contextmanager
def both(bench: Bench, python: Path, model: Endpoint, script: str) -> Iterator[tuple[Platform, Peer]]:
    """Both platforms, ready."""
    bench.progress.say("starting both platforms")
    settings: dict[str, Any] = {"engine": "openai", "fallback_url": model.url, "fallback_model": script}
    with (
        peer(bench.stack, python, model, script) as its,
        bench.stack.platform(workers=WORKERS, slots=AT_ONCE, **settings) as platform,
    ):
        yield platform, its


def measure_turns(bench: Bench, platform: Platform, its: Peer, ours: Samples, theirs: Samples) -> None:
    """Rounds of both; the first one counts for nothing."""
    for number in range(ROUNDS + 1):
        mine, other = (ours, theirs) if number else (Samples(), Samples())
        bench.progress.step(number, ROUNDS, "rounds of both, turn by turn")
        for begin, event, text in our_turns(platform.client()):
            mine.first_events.append((event - begin) * 1000)
            mine.first_texts.append((text - begin) * 1000)
        for begin, event, text in their_turns(Runs(its.address)):
            other.first_events.append((event - begin) * 1000)
            other.first_texts.append((text - begin) * 1000)
        threads = their_threads(its)
        began = used(bench.stack)
        mine.speeds.append(our_speed(bench, platform, number))
        between = used(bench.stack)
        bench.progress.step(number, ROUNDS, f"rounds of {len(threads)} runs of theirs")
        together = runs.closed_loop(its.address, CLIENTS, threads, script(20))
        other.speeds.append(together.runs_a_second)
        other.lacking.append(together.lacking)
        mine.costs.append((between - began) / TOGETHER["ours"])
        other.costs.append((used(bench.stack) - between) / len(threads))


def used(stack: Stack) -> float:
    """CPU milliseconds of all processes so far: of servers, endpoint and both platforms, of which one is idle."""
    files = (stack.folder / "run").glob("*.pid")
    return sum(1000 * cpu_seconds(psutil.Process(int(file.read_text()))) for file in files)


def our_turns(client: Client) -> Iterator[tuple[float, float, float]]:
    """When each turn was posted, its first event heard, and its first text."""
    for _ in range(SINGLE):
        began = time.perf_counter()
        events = list(client.stream("hello", **FORGETFUL))
        check(events, 20)
        yield began, events[0].at, first_delta(events)
    client.close()


def their_turns(client: Runs) -> Iterator[tuple[float, float, float]]:
    """The same of the peer's runs."""
    for _ in range(SINGLE):
        thread = client.thread()
        began = time.perf_counter()
        events = list(client.stream(thread, "hello"))
        first = next((event for event in events if event.text), None)
        if first is None:
            raise Broken(f"a run of the peer told nothing, and ended with {events[-1:]}")
        yield began, events[0].at, first.at
    client.close()


def our_speed(bench: Bench, platform: Platform, number: int) -> float:
    """Finished turns a second."""
    turns = TOGETHER["ours"]
    bench.progress.step(number, ROUNDS, f"rounds of {turns} turns of ours")
    bodies = [{"input": "hello", **FORGETFUL}] * turns
    return closed_loop(platform.address, platform.tokens(CLIENTS), bodies).turns_a_second


def their_threads(its: Peer) -> list[str]:
    """As many threads as a round has runs."""
    client = Runs(its.address)
    threads = [client.thread() for _ in range(TOGETHER["theirs"])]
    client.close()
    return threads


def measure_kills(bench: Bench, platform: Platform, its: Peer, ours: Samples, theirs: Samples) -> None:
    """Kill a worker of each in mid-answer, by turns."""
    kills = MANY_KILLS if bench.full else KILLS
    database = Database(platform.settings.postgres_dsn, size=1, name="bench")
    try:
        for number in range(kills):
            bench.progress.step(number, kills, "kills of ours")
            ours.kills.append(kill_ours(platform, database))
            bench.progress.step(number, kills, "kills of theirs, up to a minute each")
            theirs.kills.append(kill_theirs(its))
    finally:
        database.close()


def kill_ours(platform: Platform, database: Database) -> Kill:
    """One turn, one kill, and what is amiss with the answer."""
    seconds, events = killed_in_mid_answer(platform, database)
    return Kill(seconds, *amiss(text_of(since_restart(events))), ended=True)


def since_restart(events: list[Heard]) -> list[Heard]:
    """What counts of a stream that says that its answer begins again."""
    last = max((place for place, event in enumerate(events) if event.type == RESTARTED), default=-1)
    return events[last + 1 :]


def kill_theirs(its: Peer) -> Kill:
    """One run, one kill; its stream is followed to its end, or until it has been silent for longer than a lease."""
    run = Following(Runs(its.address), "hello")
    if run.wait_for_text(HEARD) is None:
        raise Broken(f"a run of the peer said too little: {run.error or run.text!r}")
    with psycopg.connect(its.dsn) as connection:
        row = connection.execute(CLAIMED_BY, (run.run_id(),)).fetchone()
    worker = next(child for child in its.workers if row and f"-{child.pid}-" in str(row[0]))
    began = time.perf_counter()
    worker.kill()
    following = run.wait_for_text(1, began + ON_ITS_WAY)
    run.wait_over()
    start_again(worker)
    return Kill(following.at - began if following else None, *amiss(run.text), ended=run.ended)


def of_turns(ours: Samples, theirs: Samples, in_process: list[float], limit: list[float]) -> list[Figure]:
    """The figures of turns."""
    ratios = [mine / its for mine, its in zip(ours.speeds, theirs.speeds, strict=True)]
    return [
        Figure("POST → first event, idle: ours", "ms", ours.first_events),
        Figure("POST → first event, idle: Aegra", "ms", theirs.first_events),
        Figure("POST → first token, idle: ours", "ms", ours.first_texts),
        Figure("POST → first token, idle: Aegra", "ms", theirs.first_texts),
        Figure(f"finished 20-token turns, {CLIENTS} clients: ours", "/s", ours.speeds),
        Figure(f"finished 20-token turns, {CLIENTS} clients: Aegra", "/s", theirs.speeds),
        Figure("ours ÷ Aegra", "x", ratios, at_least(10)),
        Figure("CPU of all processes, a turn: ours", "ms", ours.costs),
        Figure("CPU of all processes, a turn: Aegra", "ms", theirs.costs),
        Figure(f"streams that lacked tokens or their end, of {TOGETHER['theirs']}: Aegra", "", theirs.lacking),
        Figure("the same turns of ours with the engine in the process", "/s", in_process),
        Figure("answers that the endpoint itself can give", "/s", limit),
    ]


def of_kills(ours: Samples, theirs: Samples) -> list[Figure]:
    """The figures of kills."""
    return [*kills_of("ours", ours.kills, promised=True), *kills_of("Aegra", theirs.kills, promised=False)]


def kills_of(whose: str, kills: list[Kill], *, promised: bool) -> Iterator[Figure]:
    """What the streams of one platform showed; what is promised has a goal. A stream may tell no token any more."""
    if not kills:
        return
    soon, none = (at_most(1), at_most(0)) if promised else (None, None)
    if seconds := [kill.seconds for kill in kills if kill.seconds is not None]:
        yield Figure(f"kill -9 of the worker → next token: {whose}", "s", seconds, soon)
    yield Figure(f"tokens lost, a kill: {whose}", "", [kill.lost for kill in kills], none)
    yield Figure(f"tokens repeated, a kill: {whose}", "", [kill.repeated for kill in kills], none)
    yield Figure(f"streams that ended well, of {len(kills)}: {whose}", "", [sum(kill.ended for kill in kills)])

"""Another platform on the same turns of the same model, in alternating rounds: Aegra, whose guarantees are the closest.

Both request one scripted endpoint over HTTP, and run at the same time on the same Postgres and Redis, each idle while
the other is measured. Each has one web process and two workers. `docs/performance.md` describes the peer's setup.
Where the peer cannot be installed, this scenario fails with the reason; the others are not affected.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from bench.figures import Figure, at_most
from bench.harness.client import Client
from bench.harness.endpoint.answers import model_name
from bench.harness.endpoint.client import ScriptedEndpoint
from bench.harness.processes import restart, tree_cpu_seconds
from bench.harness.sse import CheckFailed, check_stream, scripted_text, text_of
from bench.harness.stack import WITHOUT_MEMORY, RunningPlatform, Stack
from bench.load import closed_loop
from bench.peers import runs
from bench.peers.environment import AEGRA, environment
from bench.peers.instances import RUNS_A_WORKER, WORKERS, Peer, endpoint, peer
from bench.peers.limit import answers_a_second
from bench.peers.runs import BackgroundRun, PeerClient
from bench.scenario import Bench
from bench.scenarios.latency import first_delta_at
from bench.scenarios.recovery import KILL_AFTER, RATE, TOKENS, count_errors, kill_in_mid_answer
from models.platform.database import Database
from models.platform.upstreams import Upstream
from ops.dead_worker_releaser import DeadWorkerReleaser

#: Rounds of both platforms, after one that warms up; single turns of each round, then turns of all clients at once.
ROUNDS, SINGLE_TURNS, PARALLEL_TURNS = 3, 20, {"ours": 400, "theirs": 64}

CLIENTS = WORKERS * RUNS_A_WORKER

#: A script without delay, and one slow enough for a kill in mid-answer.
FAST, SLOW = "tokens=20,rate=0", f"tokens={TOKENS},rate={RATE}"

#: Kills of each platform's worker; those of the peer take up to a minute.
KILLS, FULL_KILLS = 2, 8

#: Seconds after a kill in which text that the dead worker had sent may still arrive.
IN_FLIGHT = 0.5

CLAIMED_BY = "SELECT claimed_by FROM runs WHERE run_id = %s"


@dataclass(slots=True)
class Samples:
    """Samples of one platform.

    first_events, first_texts  milliseconds
    speeds, costs, incomplete  of each round: turns a second, CPU milliseconds a turn, incomplete streams
    """

    first_events: list[float] = field(default_factory=list)
    first_texts: list[float] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    incomplete: list[int] = field(default_factory=list)
    kills: "list[PeerKill]" = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PeerKill:
    """Seconds to the next token, if there was one; tokens lost and repeated; whether the stream completed."""

    seconds: float | None
    lost: int
    repeated: int
    completed: bool


def compare(bench: Bench) -> Sequence[Figure]:
    """Measure turns and kills of both platforms."""
    python = environment(bench.progress.report, AEGRA)
    ours, theirs = Samples(), Samples()
    with endpoint(bench.stack) as model:
        bench.progress.report("measuring the endpoint")
        limit = [answers_a_second(model.address, CLIENTS, model_name(FAST)) for _ in range(ROUNDS)]
        with both_platforms(bench, python, model, FAST) as (platform, other):
            measure_turns(bench, platform, other, ours, theirs)
        with bench.stack.platform(engine="scripted", script=FAST, workers=WORKERS, slots=RUNS_A_WORKER) as platform:
            in_process = [our_speed(bench, platform, number) for number in range(ROUNDS + 1)][1:]
        with both_platforms(bench, python, model, SLOW) as (platform, other):
            measure_kills(bench, platform, other, ours, theirs)
    return [
        *turn_figures(ours, theirs, in_process, limit),
        *kill_figures("ours", ours.kills, promised=True),
        *kill_figures("Aegra", theirs.kills, promised=False),
    ]


@contextmanager
def both_platforms(
    bench: Bench, python: Path, model: ScriptedEndpoint, script: str
) -> Iterator[tuple[RunningPlatform, Peer]]:
    """Run both platforms until the end of the block."""
    bench.progress.report("starting both platforms")
    name = model_name(script)
    settings: dict[str, Any] = {"engine": "openai", "upstreams": (Upstream("peer", model.url, (name,)),)}
    with (
        peer(bench.stack, python, model, name) as other,
        bench.stack.platform(workers=WORKERS, slots=RUNS_A_WORKER, **settings) as platform,
    ):
        yield platform, other


def measure_turns(bench: Bench, platform: RunningPlatform, other: Peer, ours: Samples, theirs: Samples) -> None:
    """Measure rounds of both platforms; the first one is discarded."""
    for number in range(ROUNDS + 1):
        our_samples, their_samples = (ours, theirs) if number else (Samples(), Samples())
        bench.progress.step(number, ROUNDS, "rounds of both, turn by turn")
        for samples, turns in ((our_samples, our_turns(platform.client())), (their_samples, their_turns(other))):
            for began, event_at, text_at in turns:
                samples.first_events.append((event_at - began) * 1000)
                samples.first_texts.append((text_at - began) * 1000)
        threads = create_threads(other)
        before = cpu_milliseconds(bench.stack, without=other.names)
        our_samples.speeds.append(our_speed(bench, platform, number))
        used = cpu_milliseconds(bench.stack, without=other.names) - before
        our_samples.costs.append(used / PARALLEL_TURNS["ours"])
        bench.progress.step(number, ROUNDS, f"rounds of {len(threads)} runs of theirs")
        before = cpu_milliseconds(bench.stack, without=[*platform.children, "rabbitmq"])
        result = runs.closed_loop(other.address, CLIENTS, threads, scripted_text(20))
        their_samples.speeds.append(result.runs_a_second)
        their_samples.incomplete.append(result.incomplete)
        used = cpu_milliseconds(bench.stack, without=[*platform.children, "rabbitmq"]) - before
        their_samples.costs.append(used / len(threads))


def cpu_milliseconds(stack: Stack, *, without: Collection[str]) -> float:
    """Return the CPU time so far of all processes but those that only the other platform uses: it polls when idle."""
    children = stack.servers.children.items()
    return sum(1000 * tree_cpu_seconds(child.pid) for name, child in children if name not in without)


def our_turns(client: Client) -> Iterator[tuple[float, float, float]]:
    """Run single turns; yields when each was posted, and when its first event and first text were received."""
    for _ in range(SINGLE_TURNS):
        began = time.monotonic()
        events = list(client.stream("hello", **WITHOUT_MEMORY))
        check_stream(events, 20)
        yield began, events[0].at, first_delta_at(events)
    client.close()


def their_turns(other: Peer) -> Iterator[tuple[float, float, float]]:
    """Run single runs of the peer; yields the same times."""
    client = PeerClient(other.address)
    for _ in range(SINGLE_TURNS):
        thread = client.create_thread()
        began = time.monotonic()
        events = list(client.stream(thread, "hello"))
        first = next((event for event in events if event.text), None)
        if first is None:
            raise CheckFailed(f"a run of the peer had no text, and ended with {events[-1:]}")
        yield began, events[0].at, first.at
    client.close()


def our_speed(bench: Bench, platform: RunningPlatform, number: int) -> float:
    """Measure finished turns a second."""
    turns = PARALLEL_TURNS["ours"]
    bench.progress.step(number, ROUNDS, f"rounds of {turns} turns of ours")
    bodies = [{"input": "hello", **WITHOUT_MEMORY}] * turns
    return closed_loop(platform.address, platform.tokens(CLIENTS), bodies).turns_a_second


def create_threads(other: Peer) -> list[str]:
    """Create as many threads as a round has runs."""
    with closing(PeerClient(other.address)) as client:
        return [client.create_thread() for _ in range(PARALLEL_TURNS["theirs"])]


def measure_kills(bench: Bench, platform: RunningPlatform, other: Peer, ours: Samples, theirs: Samples) -> None:
    """Kill a worker of each platform in mid-answer, alternating."""
    kills = FULL_KILLS if bench.full else KILLS
    with (
        closing(Database(platform.settings.postgres_dsn, size=1, name="bench")) as database,
        closing(DeadWorkerReleaser(platform.settings, bench.progress.report)) as releaser,
    ):
        for number in range(kills):
            bench.progress.step(number, kills, "kills of ours")
            ours.kills.append(kill_ours(platform, database, releaser))
            bench.progress.step(number, kills, "kills of theirs, up to a minute each")
            theirs.kills.append(kill_theirs(other))


def kill_ours(platform: RunningPlatform, database: Database, releaser: DeadWorkerReleaser) -> PeerKill:
    """Run one turn, and kill its worker."""
    seconds, events = kill_in_mid_answer(platform, database, releaser)
    return PeerKill(seconds, *count_errors(text_of(events)), completed=True)


def kill_theirs(other: Peer) -> PeerKill:
    """Run one run, and kill its worker; read the stream to its end, or until it is silent for longer than a lease."""
    run = BackgroundRun(PeerClient(other.address), "hello")
    if run.wait_for_text(KILL_AFTER) is None:
        raise CheckFailed(f"a run of the peer had too little text: {run.error or run.text!r}")
    with psycopg.connect(other.dsn) as connection:
        row = connection.execute(CLAIMED_BY, (run.run_id(),)).fetchone()
    worker = next(child for child in other.workers if row and f"-{child.pid}-" in str(row[0]))
    began = time.monotonic()
    worker.kill()
    following = run.wait_for_text(1, began + IN_FLIGHT)
    run.join(runs.READ_TIMEOUT)
    restart(worker)
    return PeerKill(following.at - began if following else None, *count_errors(run.text), completed=run.succeeded)


def turn_figures(ours: Samples, theirs: Samples, in_process: list[float], limit: list[float]) -> list[Figure]:
    """Return the figures of turns."""
    ratios = [mine / other for mine, other in zip(ours.speeds, theirs.speeds, strict=True)]
    costs = [mine / other for mine, other in zip(ours.costs, theirs.costs, strict=True)]
    return [
        Figure("POST → first event, idle: ours", "ms", ours.first_events),
        Figure("POST → first event, idle: Aegra", "ms", theirs.first_events),
        Figure("POST → first token, idle: ours", "ms", ours.first_texts),
        Figure("POST → first token, idle: Aegra", "ms", theirs.first_texts),
        Figure(f"finished 20-token turns, {CLIENTS} clients: ours", "/s", ours.speeds),
        Figure(f"finished 20-token turns, {CLIENTS} clients: Aegra", "/s", theirs.speeds),
        Figure("finished turns: ours ÷ Aegra", "x", ratios),
        Figure("CPU of all processes, a turn: ours", "ms", ours.costs),
        Figure("CPU of all processes, a turn: Aegra", "ms", theirs.costs),
        Figure("CPU of all processes, a turn: ours ÷ Aegra", "x", costs, at_most(0.10)),
        Figure(f"incomplete streams, of {PARALLEL_TURNS['theirs']}: Aegra", "", theirs.incomplete),
        Figure("the same turns of ours with the engine in the process", "/s", in_process),
        Figure("answers that the endpoint itself can give", "/s", limit),
    ]


def kill_figures(platform: str, kills: Sequence[PeerKill], *, promised: bool) -> Iterator[Figure]:
    """Yield the figures of kills; what is promised has a goal. A stream may have no token after its kill."""
    if not kills:
        return
    seconds_goal, none = (at_most(0.1), at_most(0)) if promised else (None, None)
    if seconds := [kill.seconds for kill in kills if kill.seconds is not None]:
        yield Figure(f"kill -9 of the worker → next token: {platform}", "s", seconds, seconds_goal)
    yield Figure(f"tokens lost, a kill: {platform}", "", [kill.lost for kill in kills], none)
    yield Figure(f"tokens repeated, a kill: {platform}", "", [kill.repeated for kill in kills], none)
    yield Figure(f"completed streams, of {len(kills)}: {platform}", "", [sum(kill.completed for kill in kills)])

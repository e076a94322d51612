"""Time to the first event and token: one turn at a time, alone, or at half of the load that the platform can carry."""

import time
from collections.abc import Sequence
from statistics import median

from bench.background_load import CONNECTIONS, background_load
from bench.bare_engine import BareEngine, bare_engine
from bench.figures import Figure, at_most
from bench.harness.client import Client
from bench.harness.sse import ReceivedEvent, check_stream, is_delta
from bench.harness.stack import LIGHT_POOLS, WITHOUT_MEMORY, RunningPlatform
from bench.load import closed_loop
from bench.progress import Progress
from bench.scenario import Bench

TURNS, WARM_UP, TOKENS = 400, 20, 20

#: Seconds between two turns, so that each finds everything idle.
PAUSE = 0.01

#: Rounds, and turns of each, that measure how many turns a second the platform can run.
CAPACITY_ROUNDS, CAPACITY_TURNS = 3, 300

SCRIPT = f"tokens={TOKENS},rate=0"

#: Rounds of bare, platform, platform, bare over the prompts; one more before them fills the prompt caches.
ROUNDS = 6

PROMPTS = (
    "Why is the sky blue?",
    "Name three rivers of Europe.",
    "How do bees find their way home?",
    "Write a sentence about the sea.",
    "What is a prime number?",
)

#: When each turn was posted, and the events of its stream.
TimedTurns = Sequence[tuple[float, list[ReceivedEvent]]]


def first_event(bench: Bench) -> Sequence[Figure]:
    """Measure POST → first event, idle and at half load."""
    with bench.stack.platform(engine="scripted", script=SCRIPT) as platform:
        idle = scripted_turns(bench.progress, platform)
        half_loads = half_of_capacity(platform)
        with background_load(platform, median(half_loads), {"input": "hello", **WITHOUT_MEMORY}):
            loaded = scripted_turns(bench.progress, platform)
    idle_events, loaded_events = to_first_event(idle), to_first_event(loaded)
    return [
        Figure("POST → first event, idle, p50", "ms", idle_events, at_most(8)),
        Figure("POST → first event, idle, p99", "ms", idle_events, at_most(20), quantile=0.99),
        Figure("POST → first token, scripted engine, idle, p50", "ms", to_first_token(idle), at_most(15)),
        Figure("half load: background turns", "/s", half_loads),
        Figure("POST → first event, half load, p50", "ms", loaded_events),
        Figure("POST → first event, half load, p99", "ms", loaded_events, quantile=0.99),
        Figure("POST → first token, scripted engine, half load, p50", "ms", to_first_token(loaded)),
    ]


def first_token(bench: Bench) -> Sequence[Figure]:
    """Measure POST → first token, with memories to recall, and beyond the bare engine's own time."""
    with bench.stack.platform(engine="scripted", script=SCRIPT, light_pools=LIGHT_POOLS) as platform:
        with_memory = to_first_token(scripted_turns(bench.progress, platform, memory=True))
    with bench.stack.platform() as platform, bare_engine(platform.settings) as engine:
        platform_ms, bare_ms = alternate(bench.progress, platform.client(), engine)
    beyond = [ours - bare for ours, bare in zip(platform_ms, bare_ms, strict=True)]
    return [
        Figure("POST → first token, scripted engine, with memory, p50", "ms", with_memory),
        Figure("POST → first token beyond the bare engine's, p50", "ms", beyond, at_most(12)),
        Figure("the bare engine's first token, prompt cached", "ms", bare_ms),
    ]


def half_of_capacity(platform: RunningPlatform) -> list[float]:
    """Measure, in each round, half of the turns a second that the platform can run."""
    bodies = [{"input": "hello", **WITHOUT_MEMORY}] * CAPACITY_TURNS
    tokens = platform.tokens(2 * CONNECTIONS)
    return [closed_loop(platform.address, tokens, bodies).turns_a_second / 2 for _ in range(CAPACITY_ROUNDS)]


def scripted_turns(progress: Progress, platform: RunningPlatform, *, memory: bool = False) -> TimedTurns:
    """Run turns one after the other; with memory each recalls the earlier ones, and is remembered."""
    turns: list[tuple[float, list[ReceivedEvent]]] = []
    client, options = platform.client(), {} if memory else WITHOUT_MEMORY
    for number in range(-WARM_UP, TURNS):
        progress.step(max(number, 0), TURNS, "scripted turns")
        began = time.monotonic()
        events = list(client.stream(f"hello, I am number {number}", **options))
        check_stream(events, TOKENS)
        turns.append((began, events))
        time.sleep(PAUSE)
    return turns[WARM_UP:]


def to_first_event(turns: TimedTurns) -> list[float]:
    """Return the milliseconds to each turn's first event."""
    return [(events[0].at - began) * 1000 for began, events in turns]


def to_first_token(turns: TimedTurns) -> list[float]:
    """Return the milliseconds to each turn's first text."""
    return [(first_delta_at(events) - began) * 1000 for began, events in turns]


def alternate(progress: Progress, client: Client, engine: BareEngine) -> tuple[list[float], list[float]]:
    """Measure milliseconds to the first token, through the platform and without it, pair by pair."""
    ours: list[float] = []
    bare: list[float] = []
    for number in range(ROUNDS + 1):
        progress.step(number, ROUNDS, "turns of the model, with and without the platform")
        for prompt in PROMPTS:
            bare.append(engine.generate("bare", [prompt], 4).first * 1000)
            ours += [through_platform(client, prompt), through_platform(client, prompt)]
            bare.append(engine.generate("bare", [prompt], 4).first * 1000)
    return ours[2 * len(PROMPTS) :], bare[2 * len(PROMPTS) :]


def through_platform(client: Client, prompt: str) -> float:
    """Measure milliseconds to the first token through the platform."""
    time.sleep(PAUSE)
    began = time.monotonic()
    events = list(client.stream(prompt, max_output_tokens=4, temperature=0, **WITHOUT_MEMORY))
    check_stream(events)
    return (first_delta_at(events) - began) * 1000


def first_delta_at(events: Sequence[ReceivedEvent]) -> float:
    """Return when the first text was received."""
    return next(event.at for event in events if is_delta(event))

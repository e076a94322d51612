"""How soon a client hears something: one turn at a time, alone, or beside half of the turns that there can be."""

import time
from collections.abc import Sequence
from statistics import median

from bench.bare import BareEngine, bare_engine
from bench.bench import Bench
from bench.client import Client, Heard, check, is_delta
from bench.crowd import CONNECTIONS, crowd
from bench.figures import Figure, at_most
from bench.load import closed_loop
from bench.progress import Progress
from bench.stack import BESIDE, FORGETFUL, Platform

TURNS, WARM_UP, TOKENS = 400, 20, 20

#: Seconds between two turns, so that each finds everything idle.
PAUSE = 0.01

#: Rounds of turns that tell how many there can be a second.
MOST = (3, 300)

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


def first_event(bench: Bench) -> Sequence[Figure]:
    """POST → first event, idle and with half of the turns that there can be going on beside it."""
    with bench.stack.platform(engine="scripted", script=SCRIPT) as platform:
        idle = scripted_turns(bench.progress, platform)
        halves = halves_of_most(platform)
        with crowd(platform, median(halves), {"input": "hello", **FORGETFUL}):
            loaded = scripted_turns(bench.progress, platform)
    events, busy = firsts(idle), firsts(loaded)
    return [
        Figure("POST → first event, idle, p50", "ms", events, at_most(10)),
        Figure("POST → first event, idle, p99", "ms", events, at_most(40), quantile=0.99),
        Figure("POST → first token, scripted engine, idle, p50", "ms", tokens(idle), at_most(15)),
        Figure("half load: other turns", "/s", halves),
        Figure("POST → first event, half load, p50", "ms", busy),
        Figure("POST → first event, half load, p99", "ms", busy, quantile=0.99),
        Figure("POST → first token, scripted engine, half load, p50", "ms", tokens(loaded)),
    ]


def first_token(bench: Bench) -> Sequence[Figure]:
    """POST → first text, with memories to search, and beyond the time of an engine that takes some."""
    with bench.stack.platform(engine="scripted", script=SCRIPT, beside=BESIDE) as platform:
        reminded = tokens(scripted_turns(bench.progress, platform, memory=True))
    with bench.stack.platform() as platform, bare_engine(platform.settings) as engine:
        platform_ms, bare_ms = interleaved(bench.progress, platform.client(), engine)
    beyond = [ours - bare for ours, bare in zip(platform_ms, bare_ms, strict=True)]
    return [
        Figure("POST → first token, scripted engine, with memory, p50", "ms", reminded),
        Figure("POST → first token beyond the bare engine's, p50", "ms", beyond, at_most(15)),
        Figure("the bare engine's first token, prompt cached", "ms", bare_ms),
    ]


def halves_of_most(platform: Platform) -> list[float]:
    """Half of the finished turns a second that the platform can carry, in each round."""
    rounds, turns = MOST
    bodies = [{"input": "hello", **FORGETFUL}] * turns
    tokens = platform.tokens(2 * CONNECTIONS)
    return [closed_loop(platform.address, tokens, bodies).turns_a_second / 2 for _ in range(rounds)]


Turns = Sequence[tuple[float, list[Heard]]]


def scripted_turns(progress: Progress, platform: Platform, *, memory: bool = False) -> Turns:
    """When each turn was posted, and what was heard; with memory each is remembered, and searches what was."""
    turns: list[tuple[float, list[Heard]]] = []
    client, options = platform.client(), {} if memory else FORGETFUL
    for number in range(-WARM_UP, TURNS):
        progress.step(max(number, 0), TURNS, "scripted turns")
        began = time.perf_counter()
        events = list(client.stream(f"hello, I am number {number}", **options))
        check(events, TOKENS)
        turns.append((began, events))
        time.sleep(PAUSE)
    return turns[WARM_UP:]


def firsts(turns: Turns) -> list[float]:
    """Milliseconds to each turn's first event."""
    return [(events[0].at - began) * 1000 for began, events in turns]


def tokens(turns: Turns) -> list[float]:
    """Milliseconds to each turn's first text."""
    return [(first_delta(events) - began) * 1000 for began, events in turns]


def interleaved(progress: Progress, client: Client, engine: BareEngine) -> tuple[list[float], list[float]]:
    """Milliseconds to the first token, through the platform and without it, pair by pair."""
    ours: list[float] = []
    bare: list[float] = []
    for number in range(ROUNDS + 1):
        progress.step(number, ROUNDS, "turns of the model, with and without the platform")
        for prompt in PROMPTS:
            bare.append(engine.say("bare", [prompt], 4).first * 1000)
            ours += [through(client, prompt), through(client, prompt)]
            bare.append(engine.say("bare", [prompt], 4).first * 1000)
    return ours[2 * len(PROMPTS) :], bare[2 * len(PROMPTS) :]


def through(client: Client, prompt: str) -> float:
    """Milliseconds to the first token through the platform."""
    time.sleep(PAUSE)
    began = time.perf_counter()
    events = list(client.stream(prompt, max_output_tokens=4, temperature=0, **FORGETFUL))
    check(events)
    return (first_delta(events) - began) * 1000


def first_delta(events: list[Heard]) -> float:
    """When the first text was heard."""
    return next(event.at for event in events if is_delta(event))

"""How many turns the platform can run, with an engine that takes no time: all cores are busy.

Turns without memory measure the platform, over either broker; the same turns remembered, and with recall as well, show
what memory costs.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from bench.figures import Figure, at_least
from bench.harness.stack import LIGHT_POOLS, WITHOUT_MEMORY, RunningPlatform, Stack, running_stack
from bench.load import LoadResult, closed_loop
from bench.scenario import Bench

TOKENS, ROUNDS, TURNS, WARM_UP = 20, 5, 400, 200

SCRIPT = f"tokens={TOKENS},rate=0"

#: Clients, each of an account of its own, and the slots of the worker: the default, and more.
CONNECTIONS, SLOTS = 16, (4, 16)

#: Subjects of the turns: few, so that turns with memory find related ones.
SUBJECTS = ("river", "dog", "garden", "piano", "train", "coffee")

NUMBERS = count()

MEMORY_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "without memory": WITHOUT_MEMORY,
    "remembered": {"memory": {"recall": False}},
    "remembered and with recall": {},
}


def turns_per_second(bench: Bench) -> Sequence[Figure]:
    """Measure finished turns a second."""
    default, more = (measure(bench, bench.stack, slots) for slots in SLOTS)
    times = [turn.seconds * 1000 for result in default for turn in result.turns]
    return [
        Figure("finished 20-token turns, scripted engine", "/s", turns_a_second(default), at_least(200)),
        Figure("events that reached clients", "/s", [result.events_a_second for result in default]),
        Figure(f"duration of a turn, {CONNECTIONS} clients", "ms", times),
        Figure(f"finished turns, {SLOTS[1]} slots", "/s", turns_a_second(more)),
        *over_redis(bench),
        *with_memory(bench),
    ]


def over_redis(bench: Bench) -> Iterator[Figure]:
    """Measure the same turns with Redis as the broker, on servers of their own."""
    if bench.stack.broker != "redis":
        with running_stack("redis") as stack:
            yield Figure("finished turns, Redis as the broker", "/s", turns_a_second(measure(bench, stack, SLOTS[0])))


def measure(bench: Bench, stack: Stack, slots: int) -> list[LoadResult]:
    """Run rounds with a number of slots, without memory."""
    with stack.platform(engine="scripted", script=SCRIPT, slots=slots) as platform:
        run_round(platform, WARM_UP, WITHOUT_MEMORY)
        results = []
        for number in range(ROUNDS):
            bench.progress.step(number, ROUNDS, f"rounds of {TURNS} turns, {slots} slots")
            results.append(run_round(platform, TURNS, WITHOUT_MEMORY))
        return results


def with_memory(bench: Bench) -> Iterator[Figure]:
    """Measure turns without memory, remembered, and with recall as well, in alternating rounds."""
    results: dict[str, list[LoadResult]] = {name: [] for name in MEMORY_OPTIONS}
    with bench.stack.platform(engine="scripted", script=SCRIPT, light_pools=LIGHT_POOLS) as platform:
        for number in range(-1, ROUNDS):
            bench.progress.step(max(number, 0), ROUNDS, f"rounds of {TURNS} turns, with memory")
            for name, options in MEMORY_OPTIONS.items():
                result = run_round(platform, TURNS if number >= 0 else WARM_UP, options)
                results[name] += [result] if number >= 0 else []
    for name, rounds in results.items():
        yield Figure(f"finished turns in alternating rounds, {name}", "/s", turns_a_second(rounds))


def run_round(
    platform: RunningPlatform, turns: int, options: Mapping[str, Any], connections: int = CONNECTIONS
) -> LoadResult:
    """Run turns as fast as possible over several connections, each of an account of its own."""
    inputs = (f"Tell me of my {SUBJECTS[number % len(SUBJECTS)]} number {number}." for number in NUMBERS)
    bodies = [{"input": next(inputs), **options} for _ in range(turns)]
    return closed_loop(platform.address, platform.tokens(connections), bodies)


def turns_a_second(results: Sequence[LoadResult]) -> list[float]:
    """Turns a second of each round."""
    return [result.turns_a_second for result in results]

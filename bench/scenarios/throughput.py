"""How many turns the platform itself can carry, with an engine that costs nothing: all cores are busy.

Turns without memory say what the platform carries, over either broker; the same turns remembered, and also reminded,
say what memory costs.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from bench.bench import Bench
from bench.figures import Figure, at_least
from bench.load import Load, closed_loop
from bench.stack import BESIDE, FORGETFUL, Platform, Stack, standing

TOKENS, ROUNDS, TURNS, WARM_UP = 20, 5, 400, 200

SCRIPT = f"tokens={TOKENS},rate=0"

#: Clients, each of an account of its own, and the slots of the worker: the default, and more.
CONNECTIONS, SLOTS = 16, (4, 16)

#: What turns with memory say: each something else, about few things.
THINGS = ("river", "dog", "garden", "piano", "train", "coffee")

NUMBERS = count()

REMEMBERED: Mapping[str, Any] = {"memory": {"recall": False}}
REMINDED: Mapping[str, Any] = {}


def turns_per_second(bench: Bench) -> Sequence[Figure]:
    """Finished turns a second."""
    default, more = (measured(bench, bench.stack, slots) for slots in SLOTS)
    times = [turn.seconds * 1000 for load in default for turn in load.turns]
    return [
        Figure("finished 20-token turns, scripted engine", "/s", speeds(default), at_least(200)),
        Figure("events that reached clients", "/s", [load.events_a_second for load in default]),
        Figure(f"a turn's time, {CONNECTIONS} clients", "ms", times),
        Figure(f"finished turns, {SLOTS[1]} slots", "/s", speeds(more)),
        *over_redis(bench),
        *with_memory(bench),
    ]


def over_redis(bench: Bench) -> Iterator[Figure]:
    """The same turns where Redis carries the queue, on servers of their own."""
    if bench.stack.broker != "redis":
        with standing("redis") as stack:
            yield Figure("finished turns, Redis as the broker", "/s", speeds(measured(bench, stack, SLOTS[0])))


def measured(bench: Bench, stack: Stack, slots: int) -> list[Load]:
    """Rounds with a number of slots, without memory."""
    with stack.platform(engine="scripted", script=SCRIPT, slots=slots) as platform:
        round_of(platform, WARM_UP, FORGETFUL)
        loads = []
        for number in range(ROUNDS):
            bench.progress.step(number, ROUNDS, f"rounds of {TURNS} turns, {slots} slots")
            loads.append(round_of(platform, TURNS, FORGETFUL))
        return loads


def with_memory(bench: Bench) -> Iterator[Figure]:
    """The same turns without memory, remembered, and reminded as well, round by round: what each costs."""
    kinds = {"without memory": FORGETFUL, "remembered": REMEMBERED, "remembered and reminded": REMINDED}
    loads: dict[str, list[Load]] = {name: [] for name in kinds}
    with bench.stack.platform(engine="scripted", script=SCRIPT, beside=BESIDE) as platform:
        for number in range(-1, ROUNDS):
            bench.progress.step(max(number, 0), ROUNDS, f"rounds of {TURNS} turns, with memory")
            for name, memory in kinds.items():
                load = round_of(platform, TURNS if number >= 0 else WARM_UP, memory)
                loads[name] += [load] if number >= 0 else []
    for name, rounds in loads.items():
        yield Figure(f"finished turns in turn, {name}", "/s", speeds(rounds))


def round_of(platform: Platform, turns: int, memory: Mapping[str, Any], connections: int = CONNECTIONS) -> Load:
    """So many turns, as fast as they go, over as many connections, each of an account of its own."""
    said = (f"Tell me of my {THINGS[number % len(THINGS)]} number {number}." for number in NUMBERS)
    bodies = [{"input": next(said), **memory} for _ in range(turns)]
    return closed_loop(platform.address, platform.tokens(connections), bodies)


def speeds(loads: Sequence[Load]) -> list[float]:
    """Turns a second of each round."""
    return [load.turns_a_second for load in loads]

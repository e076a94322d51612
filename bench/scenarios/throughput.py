"""How many turns the platform itself can carry, with an engine that costs nothing: all cores are busy."""

from collections.abc import Sequence

from bench.bench import Bench
from bench.figures import Figure, at_least
from bench.load import Load, closed_loop
from bench.stack import Platform

TOKENS, ROUNDS, TURNS, WARM_UP = 20, 5, 600, 200

#: Clients, each of an account of its own, and the slots of the worker: the default, and more.
CONNECTIONS, SLOTS = 16, (4, 16)

BODY = {"input": "hello"}


def turns_per_second(bench: Bench) -> Sequence[Figure]:
    """Finished turns a second."""
    default, more = ([*measured(bench, slots)] for slots in SLOTS)
    times = [turn.seconds * 1000 for load in default for turn in load.turns]
    return [
        Figure("finished 20-token turns, scripted engine", "/s", speeds(default), at_least(200)),
        Figure("events that reached clients", "/s", [load.events_a_second for load in default]),
        Figure(f"a turn's time, {CONNECTIONS} clients", "ms", times),
        Figure(f"finished turns, {SLOTS[1]} slots", "/s", speeds(more)),
    ]  # fmt: skip


def measured(bench: Bench, slots: int) -> list[Load]:
    """Rounds with a number of slots."""
    script = f"tokens={TOKENS},rate=0"
    with bench.stack.platform(engine="scripted", script=script, slots=slots) as platform:
        round_of(platform, WARM_UP)
        loads = []
        for number in range(ROUNDS):
            bench.progress.step(number, ROUNDS, f"rounds of {TURNS} turns, {slots} slots")
            loads.append(round_of(platform, TURNS))
        return loads


def round_of(platform: Platform, turns: int) -> Load:
    """So many turns, as fast as they go."""
    return closed_loop(platform.address, platform.tokens(CONNECTIONS), [BODY] * turns)


def speeds(loads: Sequence[Load]) -> list[float]:
    """Turns a second of each round."""
    return [load.turns_a_second for load in loads]

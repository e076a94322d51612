"""The round trips of all traced turns by name: how many a turn, and how long they take."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence

from bench.table import number
from bench.trace.run import Trace
from bench.trace.turn import SERVERS, TraceStep, steps

HEADINGS = ("server", "from", "round trip", "a turn", "ms (median)")


def round_trips(traced: Trace) -> list[tuple[str, ...]]:
    """Yield one row for each round trip that at least every other turn makes."""
    times_by_trip: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for step in server_steps(traced):
        times_by_trip[SERVERS[step.kind], step.lane, step.label].append(step.milliseconds)
    turns = len(traced.turns)
    return [
        (*trip, number(len(times) / turns), number(statistics.median(times)))
        for trip, times in times_by_trip.items()
        if len(times) > turns / 2
    ]


def totals(traced: Trace, tokens: int) -> Iterator[str]:
    """Yield the round trips, statements and commands of a turn and of a token."""
    turns = len(traced.turns)
    for kind, server in SERVERS.items():
        own_steps = [step for step in server_steps(traced) if step.kind == kind]
        requests = sum(max(len(step.parts), 1) for step in own_steps)
        a_turn, parts = len(own_steps) / turns, requests / turns
        yield (
            f"{server}: {number(a_turn)} round trips a turn, with {number(parts)} statements or commands; "
            f"{number(a_turn / tokens)} round trips a token"
        )


def server_steps(traced: Trace) -> Sequence[TraceStep]:
    """Return the round trips of all turns."""
    return [step for turn in traced.turns for step in steps(traced, turn) if step.kind in SERVERS]

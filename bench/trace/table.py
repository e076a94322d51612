"""The trips of all traced turns by name: how many a turn, and how long they take."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence

from bench.table import number
from bench.trace.run import Traced
from bench.trace.turn import SERVERS, Step, steps

HEADINGS = ("server", "from", "trip", "a turn", "ms (median)")


def trips(traced: Traced) -> list[tuple[str, ...]]:
    """A row a trip, the rarest left out: what belongs to a turn is made in every other one at least."""
    made: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for step in each(traced):
        made[SERVERS[step.kind], step.lane, step.label].append(step.milliseconds)
    turns = len(traced.turns)
    return [
        (*named, number(len(times) / turns), number(statistics.median(times)))
        for named, times in made.items()
        if len(times) > turns / 2
    ]


def totals(traced: Traced, tokens: int) -> Iterator[str]:
    """What a turn and a token cost in trips, statements and commands."""
    turns = len(traced.turns)
    for kind, server in SERVERS.items():
        made = [step for step in each(traced) if step.kind == kind]
        said = sum(max(len(step.parts), 1) for step in made)
        a_turn, parts = len(made) / turns, said / turns
        yield (
            f"{server}: {number(a_turn)} trips a turn, which carry {number(parts)} statements or commands; "
            f"{number(a_turn / tokens)} trips a token"
        )


def each(traced: Traced) -> Sequence[Step]:
    """The trips of all turns."""
    return [step for turn in traced.turns for step in steps(traced, turn) if step.kind in SERVERS]

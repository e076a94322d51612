"""Figures: samples of one quantity, what they come to, and whether that reaches the goal."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

#: The spread of a median: from this quantile of the samples to the other.
LOW, HIGH = 0.1, 0.9

#: The spread of any other quantile: its lowest and highest value among this many consecutive parts of the run.
PARTS = 5


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit, in the figure's unit: at most, or at least."""

    limit: float
    at_least: bool = False

    def met_by(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table.

    unit      of the samples: `ms`, `s`, `/s`, `x` (a ratio), or empty for a count
    quantile  which one of the samples counts: 0.5 is the median
    """

    what: str
    unit: str
    samples: Sequence[float]
    goal: Goal | None = None
    quantile: float = 0.5

    @property
    def value(self) -> float:
        """What was measured."""
        return quantile(self.samples, self.quantile)

    @property
    def spread(self) -> tuple[float, float]:
        """Between which values the samples, or the quantile, lie."""
        if self.quantile == 0.5:
            return quantile(self.samples, LOW), quantile(self.samples, HIGH)
        each = [quantile(part, self.quantile) for part in parts(self.samples, PARTS)]
        return min(each), max(each)

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        return self.goal.met_by(self.value) if self.goal else None


def quantile(samples: Sequence[float], q: float) -> float:
    """The q-quantile, linear between the two nearest samples (type 7 of Hyndman and Fan). Raises on no samples."""
    ordered = sorted(samples)
    if not ordered:
        raise statistics.StatisticsError("there are no samples")
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def parts(samples: Sequence[float], count: int) -> list[Sequence[float]]:
    """The samples cut into at most `count` consecutive parts of nearly equal length, none of them empty."""
    count = min(count, len(samples))
    edges = [len(samples) * place // count for place in range(count + 1)] if count else []
    return [samples[begin:end] for begin, end in pairwise(edges)]


def at_most(limit: float) -> Goal:
    """A goal from above."""
    return Goal(limit)


def at_least(limit: float) -> Goal:
    """A goal from below."""
    return Goal(limit, at_least=True)

"""Figures: samples of one quantity, their statistics, and whether they meet a goal."""

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
    """A limit, in the figure's unit: an upper one, or a lower one."""

    limit: float
    at_least: bool = False

    def met_by(self, value: float) -> bool:
        """Return whether a value meets the goal."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table.

    unit      of the samples: `ms`, `s`, `/s`, `x` (a ratio), or empty for a count
    quantile  of the samples that is the value: 0.5 is the median
    """

    name: str
    unit: str
    samples: Sequence[float]
    goal: Goal | None = None
    quantile: float = 0.5

    @property
    def value(self) -> float:
        """The measured value."""
        return quantile(self.samples, self.quantile)

    @property
    def spread(self) -> tuple[float, float]:
        """The values between which most samples lie, or the quantile of each part of the run."""
        if self.quantile == 0.5:
            return quantile(self.samples, LOW), quantile(self.samples, HIGH)
        each = [quantile(part, self.quantile) for part in parts(self.samples, PARTS)]
        return min(each), max(each)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        return self.goal.met_by(self.value) if self.goal else None


def quantile(samples: Sequence[float], q: float) -> float:
    """Return the q-quantile by linear interpolation (type 7 of Hyndman and Fan). Raises StatisticsError without any."""
    ordered = sorted(samples)
    if not ordered:
        raise statistics.StatisticsError("there are no samples")
    position = q * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def parts(samples: Sequence[float], count: int) -> list[Sequence[float]]:
    """Cut samples into at most `count` consecutive parts of nearly equal length, none of them empty."""
    count = min(count, len(samples))
    edges = [len(samples) * number // count for number in range(count + 1)] if count else []
    return [samples[begin:end] for begin, end in pairwise(edges)]


def at_most(limit: float) -> Goal:
    """Return an upper limit."""
    return Goal(limit)


def at_least(limit: float) -> Goal:
    """Return a lower limit."""
    return Goal(limit, at_least=True)

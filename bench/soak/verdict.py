"""Decide whether a series grows: robust trends after the warm-up, compared with stated tolerances.

A series is first reduced to the medians of equal intervals, which removes spikes and the sawtooth of a garbage
collector. Its trend is the least of three Theil-Sen slopes: of the whole, and of each half. So one step is no trend
(one of the halves is flat), and a leak of any form is one. A growing series also never returns to an earlier level:
the floor of the second half must have risen too, and so must the last quarter, by more than half of the series' swing.
In a sawtooth with a long period they have not.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from bench.figures import quantile

#: The share of the run that is warm-up, in which caches fill and pools grow to their size.
WARM_UP = 1 / 3

#: Intervals that a series is reduced to.
INTERVALS = 48

#: Seconds after the warm-up, and intervals, below which there is no verdict.
SHORTEST, FEWEST = 40.0, 8

#: How much faster a proportional series may grow, for the same operations, in the second half than in the first.
FASTER = 1.5

Conclusion = Literal["steady", "step", "proportional", "GROWING", "too short"]


@dataclass(frozen=True, slots=True)
class Point:
    """A value, and the seconds and operations after which it was read."""

    at: float
    operations: float
    value: float


@dataclass(frozen=True, slots=True)
class Flat:
    """May not grow: its trend may amount to `least` at most, or to `each` an operation.

    step  the most that it may rise in one step, in its unit; None for any
    """

    least: float
    each: float = 0.0
    step: float | None = None


@dataclass(frozen=True, slots=True)
class Proportional:
    """May grow in proportion to the operations; differences of less than `least` are ignored."""

    least: float


@dataclass(frozen=True, slots=True)
class ShownOnly:
    """Is shown and not judged."""


Rule = Flat | Proportional | ShownOnly


@dataclass(frozen=True, slots=True)
class Verdict:
    """A series in numbers: its level after the warm-up and at the end, its trend, and the conclusion.

    slope      of the trend, a second
    each       of the trend, an operation
    tolerance  the most that it may grow in the judged time; None where there is no limit
    """

    start: float
    end: float
    slope: float
    each: float
    tolerance: float | None
    conclusion: Conclusion

    @property
    def grows(self) -> bool:
        """Whether the series fails."""
        return self.conclusion == "GROWING"


def judge(points: Sequence[Point], rule: Rule) -> Verdict:
    """Judge a series by its rule, without its warm-up."""
    medians = interval_medians(after_warm_up(points))
    if len(medians) < FEWEST or medians[-1].at - medians[0].at < SHORTEST:
        value = points[-1].value if points else 0.0
        return Verdict(value, value, 0.0, 0.0, None, "too short")
    seconds, operations = medians[-1].at - medians[0].at, medians[-1].operations - medians[0].operations
    slope = trend([(point.at, point.value) for point in medians])
    start, end = edges(medians)
    risen = min(
        slope * seconds, risen_floor(medians), (end - start) * 4 / 3
    )  # the middles of the quarters are 3/4 of the time apart
    risen = risen if risen > swing(medians, slope) / 2 else 0.0
    tolerance, conclusion = _conclude(medians, rule, risen, end - start, operations)
    each = theil_sen([(point.operations, point.value) for point in medians])
    return Verdict(start, end, slope, each, tolerance, conclusion)


def after_warm_up(points: Sequence[Point]) -> Sequence[Point]:
    """Return the points that are judged."""
    if not points:
        return points
    first, last = points[0].at, points[-1].at
    return [point for point in points if point.at >= first + (last - first) * WARM_UP]


def interval_medians(points: Sequence[Point]) -> list[Point]:
    """Return the medians of at most INTERVALS intervals, without empty ones."""
    if len(points) < 2:
        return list(points)
    first, length = points[0].at, (points[-1].at - points[0].at) / INTERVALS or 1.0
    groups: dict[int, list[Point]] = {}
    for point in points:
        groups.setdefault(min(int((point.at - first) / length), INTERVALS - 1), []).append(point)
    return [_median(group) for _, group in sorted(groups.items())]


def trend(points: Sequence[tuple[float, float]]) -> float:
    """Return the smallest slope of the whole and both halves; 0 if their signs differ."""
    half = len(points) // 2
    slopes = [theil_sen(part) for part in (points, points[:half], points[half:])]
    if all(slope > 0 for slope in slopes):
        return min(slopes)
    return max(slopes) if all(slope < 0 for slope in slopes) else 0.0


def theil_sen(points: Sequence[tuple[float, float]]) -> float:
    """Return the median of the slopes between all pairs of points; 0 without any."""
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x1 != x2]
    return statistics.median(slopes) if slopes else 0.0


def risen_floor(points: Sequence[Point]) -> float:
    """Return the rise of the whole, estimated from the lowest tenths of both halves."""
    half = len(points) // 2
    first, second = (quantile([point.value for point in part], 0.1) for part in (points[:half], points[half:]))
    return 2 * (second - first)


def swing(points: Sequence[Point], slope: float) -> float:
    """Return the spread of the values around a slope, from the 10th to the 90th percentile."""
    residuals = [point.value - slope * point.at for point in points]
    return quantile(residuals, 0.9) - quantile(residuals, 0.1)


def edges(points: Sequence[Point]) -> tuple[float, float]:
    """Return the medians of the first and the last quarter."""
    share = max(1, len(points) // 4)
    return (
        statistics.median(point.value for point in points[:share]),
        statistics.median(point.value for point in points[-share:]),
    )


def _conclude(
    points: Sequence[Point], rule: Rule, risen: float, between: float, operations: float
) -> tuple[float | None, Conclusion]:
    if isinstance(rule, ShownOnly):
        return None, "steady"
    if isinstance(rule, Proportional):
        return _conclude_proportional(points, rule)
    tolerance = max(rule.least, rule.each * operations)
    if risen > tolerance or (rule.step is not None and between > max(rule.step, tolerance)):
        return tolerance, "GROWING"
    return tolerance, "step" if between > tolerance else "steady"


def _conclude_proportional(points: Sequence[Point], rule: Proportional) -> tuple[float, Conclusion]:
    half = len(points) // 2
    first, second = ([(point.operations, point.value) for point in part] for part in (points[:half], points[half:]))
    operations = second[-1][0] - second[0][0]
    tolerance = max(theil_sen(first), 0.0) * operations * FASTER + rule.least
    return tolerance, "GROWING" if theil_sen(second) * operations > tolerance else "proportional"


def _median(group: Sequence[Point]) -> Point:
    return Point(
        statistics.median(point.at for point in group),
        statistics.median(point.operations for point in group),
        statistics.median(point.value for point in group),
    )

"""Whether a series grows: robust trends over what came after the warm-up, against stated tolerances.

A series is first told as the medians of equal stretches of time, so that spikes and the teeth of a garbage collector
vanish. A trend is what all of it and each half of it have in common: the least of three Theil-Sen slopes. So one step
is no trend (on one of its sides it is flat), and a leak is one, whatever its form. And what grows never comes back to
where it was: the floor of the second half must have risen as well, and so must the last quarter, by more than half of
what the series swings by anyway. Under long teeth they have not.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from bench.figures import quantile

#: The share of the run that is warm-up: caches fill, pools grow to their size.
WARM_UP = 1 / 3

#: Stretches that a series is told in.
STRETCHES = 48

#: Seconds after the warm-up and stretches that a verdict takes: nothing is told from less.
SHORTEST, FEWEST = 40.0, 8

#: A series that grows by use may grow this much faster, for the same work, in the second half than in the first.
FASTER = 1.5

Say = Literal["steady", "step", "by use", "GROWING", "too short"]


@dataclass(frozen=True, slots=True)
class Point:
    """A value, and the seconds and the pieces of work after which it was read."""

    at: float
    work: float
    value: float


@dataclass(frozen=True, slots=True)
class Flat:
    """What may not grow. It does when its trend came to more than `least`, and to more than `each` a piece of work.

    step  the most that it may rise once and for all, in its unit; None: as much as it likes
    """

    least: float
    each: float = 0.0
    step: float | None = None


@dataclass(frozen=True, slots=True)
class ByUse:
    """What grows with the work, and so not faster than it; differences of less than `least` count for nothing."""

    least: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What is shown and not judged."""


Rule = Flat | ByUse | Seen


@dataclass(frozen=True, slots=True)
class Judged:
    """A series in numbers: where it stood after the warm-up and at the end, its trend, and what that means.

    slope      of the trend, a second
    each       of the trend, a piece of work
    tolerance  the most that it may come to in all of the time that was judged; None where there is none
    """

    start: float
    end: float
    slope: float
    each: float
    tolerance: float | None
    say: Say

    @property
    def grows(self) -> bool:
        """Whether it fails."""
        return self.say == "GROWING"


def judge(points: Sequence[Point], rule: Rule) -> Judged:
    """A series under its rule; what came in the first third counts for nothing."""
    told = stretches(after_warm_up(points))
    if len(told) < FEWEST or told[-1].at - told[0].at < SHORTEST:
        value = points[-1].value if points else 0.0
        return Judged(value, value, 0.0, 0.0, None, "too short")
    seconds, work = told[-1].at - told[0].at, told[-1].work - told[0].work
    slope = trend([(point.at, point.value) for point in told])
    start, end = edges(told)
    risen = min(slope * seconds, risen_floor(told), (end - start) * 4 / 3)  # the quarters' middles are 3/4 of it apart
    risen = risen if risen > swing(told, slope) / 2 else 0.0
    tolerance, say = _say(told, rule, risen, end - start, work)
    each = theil_sen([(point.work, point.value) for point in told])
    return Judged(start, end, slope, each, tolerance, say)


def after_warm_up(points: Sequence[Point]) -> Sequence[Point]:
    """What is judged."""
    if not points:
        return points
    first, last = points[0].at, points[-1].at
    return [point for point in points if point.at >= first + (last - first) * WARM_UP]


def stretches(points: Sequence[Point]) -> list[Point]:
    """Medians of at most STRETCHES stretches of time, none of them empty."""
    if len(points) < 2:
        return list(points)
    first, length = points[0].at, (points[-1].at - points[0].at) / STRETCHES or 1.0
    groups: dict[int, list[Point]] = {}
    for point in points:
        groups.setdefault(min(int((point.at - first) / length), STRETCHES - 1), []).append(point)
    return [_middle(group) for _, group in sorted(groups.items())]


def trend(points: Sequence[tuple[float, float]]) -> float:
    """The slope that the whole and both halves have in common; 0 where they don't agree on a direction."""
    half = len(points) // 2
    slopes = [theil_sen(part) for part in (points, points[:half], points[half:])]
    if all(slope > 0 for slope in slopes):
        return min(slopes)
    return max(slopes) if all(slope < 0 for slope in slopes) else 0.0


def theil_sen(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between all pairs; 0 where there is none."""
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x1 != x2]
    return statistics.median(slopes) if slopes else 0.0


def risen_floor(points: Sequence[Point]) -> float:
    """What the lowest tenths of both halves say of how much the whole has risen."""
    half = len(points) // 2
    first, second = (quantile([point.value for point in part], 0.1) for part in (points[:half], points[half:]))
    return 2 * (second - first)


def swing(points: Sequence[Point], slope: float) -> float:
    """What the values swing by about a slope: from the lowest tenth to the highest."""
    rest = [point.value - slope * point.at for point in points]
    return quantile(rest, 0.9) - quantile(rest, 0.1)


def edges(points: Sequence[Point]) -> tuple[float, float]:
    """Where a series stands in its first quarter and in its last."""
    share = max(1, len(points) // 4)
    return (
        statistics.median(point.value for point in points[:share]),
        statistics.median(point.value for point in points[-share:]),
    )


def _say(points: Sequence[Point], rule: Rule, risen: float, between: float, work: float) -> tuple[float | None, Say]:
    if isinstance(rule, Seen):
        return None, "steady"
    if isinstance(rule, ByUse):
        return _by_use(points, rule)
    tolerance = max(rule.least, rule.each * work)
    if risen > tolerance or (rule.step is not None and between > max(rule.step, tolerance)):
        return tolerance, "GROWING"
    return tolerance, "step" if between > tolerance else "steady"


def _by_use(points: Sequence[Point], rule: ByUse) -> tuple[float, Say]:
    half = len(points) // 2
    first, second = ([(point.work, point.value) for point in part] for part in (points[:half], points[half:]))
    work = second[-1][0] - second[0][0]
    tolerance = max(theil_sen(first), 0.0) * work * FASTER + rule.least
    return tolerance, "GROWING" if theil_sen(second) * work > tolerance else "by use"


def _middle(group: Sequence[Point]) -> Point:
    return Point(
        statistics.median(point.at for point in group),
        statistics.median(point.work for point in group),
        statistics.median(point.value for point in group),
    )

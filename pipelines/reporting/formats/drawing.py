"""Lay out a chart as rectangles, lines and texts, which a page and a PDF draw alike. The unit is a point."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from models.platform.texts import truncate
from pipelines.reporting.formats.charts import Chart
from pipelines.reporting.formats.texts import short_number

#: The width of every chart, and the height of one over time.
WIDTH, HEIGHT = 720.0, 240.0

#: Room for the labels of the axes, and for a line of the legend.
LEFT, RIGHT, TOP, BOTTOM, LEGEND = 52.0, 8.0, 8.0, 22.0, 18.0

#: A bar of a ranking, and the room for its name and its number.
BAR, BAR_GAP, BAR_NAME, BAR_NUMBER = 16.0, 6.0, 190.0, 70.0

#: About this many labels fit on an axis of each direction; the width of a character is estimated.
X_LABELS, Y_LABELS, CHARACTER = 7, 4, 6.8

#: Characters of a time on the axis: `2026-10-31 09:00`.
AXIS_LABEL = 16

#: A column of at least this width has a gap to the next one.
GAP_FROM = 4.0

#: The first groups have colours 1 to 6; the others are grey.
GREY = 0

#: Characters of a name in a chart; the whole name is in its tooltip and in the table.
NAME_LENGTH = 30

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A filled rectangle. `hint` is shown for it by a browser."""

    x: float
    y: float
    width: float
    height: float
    colour: int
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Path:
    """A line through points; without a colour it belongs to the axes."""

    points: Sequence[tuple[float, float]]
    colour: int | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """A text. Its position is its baseline."""

    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    muted: bool = False


Shape = Rectangle | Path | Label


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart as shapes, and its size."""

    width: float
    height: float
    shapes: Sequence[Shape]


def draw(chart: Chart) -> Drawing:
    """Lay out a chart."""
    return _bars(chart) if chart.kind == "bars" else _over_time(chart)


def _bars(chart: Chart) -> Drawing:
    """Lay out a ranking. The sum of others has no bar, which would be longer than all of them."""
    values = [value or 0.0 for value in chart.series[0].values]
    scale = (WIDTH - BAR_NAME - BAR_NUMBER) / (max((abs(value) for value in values), default=0.0) or 1.0)
    shapes: list[Shape] = []
    for index, (name, value) in enumerate(zip(chart.labels, values, strict=True)):
        y, width = TOP + index * (BAR + BAR_GAP), abs(value) * scale
        shapes.append(Label(BAR_NAME - 8, y + BAR - 4, truncate(name, NAME_LENGTH), "end"))
        shapes.append(Rectangle(BAR_NAME, y, width, BAR, 1, f"{name}: {value:,.6g}"))
        shapes.append(Label(BAR_NAME + width + 6, y + BAR - 4, short_number(value), muted=True))
    for index, series in enumerate(chart.series[1:], len(values)):
        y = TOP + index * (BAR + BAR_GAP) + BAR - 4
        shapes.append(Label(BAR_NAME - 8, y, series.name, "end", muted=True))
        shapes.append(Label(BAR_NAME, y, short_number(series.values[0] or 0.0), muted=True))
    return Drawing(WIDTH, TOP + (len(values) + len(chart.series) - 1) * (BAR + BAR_GAP), shapes)


@dataclass(frozen=True, slots=True)
class _Plot:
    """The area of a chart over time: where a value and a position are."""

    low: float
    high: float
    count: int
    height: float

    def y(self, value: float) -> float:
        return TOP + self.height * (self.high - value) / (self.high - self.low)

    @property
    def step(self) -> float:
        return (WIDTH - LEFT - RIGHT) / max(1, self.count)

    def x(self, index: int) -> float:
        """Return the middle of a position."""
        return LEFT + (index + 0.5) * self.step


def _over_time(chart: Chart) -> Drawing:
    ticks = _ticks(*_extremes(chart))
    plot = _Plot(ticks[0], ticks[-1], len(chart.labels), HEIGHT - TOP - BOTTOM)
    shapes = [*_grid(plot, ticks), *_time_labels(plot, chart.labels)]
    shapes += _columns(plot, chart) if chart.kind == "columns" else _lines(plot, chart)
    legend = list(_legend(chart)) if len(chart.series) > 1 else []
    height = HEIGHT + (max(label.y for label in legend if isinstance(label, Label)) - HEIGHT + 6 if legend else 0)
    return Drawing(WIDTH, height, [*shapes, *legend])


def _extremes(chart: Chart) -> tuple[float, float]:
    """Return the lowest and the highest value: of columns that are stacked their sums, below and above zero."""
    if chart.kind == "lines":
        values = [value for series in chart.series for value in series.values if value is not None]
    else:
        stacks = list(zip(*(series.values for series in chart.series), strict=True))
        values = [sum(value for value in stack if value and value > 0) for stack in stacks]
        values += [sum(value for value in stack if value and value < 0) for stack in stacks]
    return min(0.0, *values, 0.0), max(0.0, *values, 0.0)


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers from `low` to beyond `high`, each of which is 1, 2 or 5 times a power of ten apart."""
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / Y_LABELS))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * Y_LABELS >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil((high or step) / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _grid(plot: _Plot, ticks: Sequence[float]) -> Iterator[Shape]:
    for tick in ticks:
        y = plot.y(tick)
        yield Path([(LEFT, y), (WIDTH - RIGHT, y)])
        yield Label(LEFT - 6, y + 3.5, short_number(tick), "end", muted=True)


def _time_labels(plot: _Plot, labels: Sequence[str]) -> Iterator[Shape]:
    """Label the times, each without the offset of its hour, at equal distances so that no two overlap."""
    texts = [label[:AXIS_LABEL] for label in labels]
    width = max(len(text) for text in texts) * CHARACTER
    every = max(1, math.ceil(len(texts) / X_LABELS), math.ceil((width + 12) / plot.step))
    end = -math.inf
    for index in range(0, len(texts), every):
        half = len(texts[index]) * CHARACTER / 2
        x = min(max(plot.x(index), half), WIDTH - half)
        if x - half > end:
            yield Label(x, HEIGHT - 6, texts[index], "middle", muted=True)
            end = x + half + 4


def _columns(plot: _Plot, chart: Chart) -> Iterator[Shape]:
    gap = 1.5 if plot.step >= GAP_FROM else 0.0
    width = min(plot.step - gap, 48.0)
    for index, label in enumerate(chart.labels):
        above = below = 0.0
        for number, series in enumerate(chart.series):
            value = series.values[index] or 0.0
            base = above if value > 0 else below
            if value:
                top, bottom = plot.y(max(base, base + value)), plot.y(min(base, base + value))
                hint = " · ".join(part for part in (label, series.name, f"{value:,.6g}") if part)
                yield Rectangle(plot.x(index) - width / 2, top, width, bottom - top, _colour(chart, number), hint)
            above, below = above + max(value, 0.0), below + min(value, 0.0)


def _lines(plot: _Plot, chart: Chart) -> Iterator[Shape]:
    """Draw a line of each series, with gaps where it has no value. A value between two gaps is a square."""
    for number, series in enumerate(chart.series):
        colour = _colour(chart, number)
        for index, value in enumerate(series.values):
            if value is None:
                continue
            hint = " · ".join(part for part in (chart.labels[index], series.name, f"{value:,.4g}") if part)
            size = 4.0 if plot.step >= GAP_FROM else 1.5
            yield Rectangle(plot.x(index) - size / 2, plot.y(value) - size / 2, size, size, colour, hint)
        for run in _runs(series.values):
            points = [(plot.x(index), plot.y(value)) for index, value in run]
            if len(points) > 1:
                yield Path(points, colour)


def _runs(values: Sequence[float | None]) -> Iterator[list[tuple[int, float]]]:
    """Return the runs of values between gaps."""
    run: list[tuple[int, float]] = []
    for index, value in enumerate(values):
        if value is None:
            yield run
            run = []
        else:
            run.append((index, value))
    yield run


def _legend(chart: Chart) -> Iterator[Shape]:
    x, y = LEFT, HEIGHT + 10
    for number, series in enumerate(chart.series):
        name = truncate(series.name, NAME_LENGTH)
        width = 16 + len(name) * CHARACTER + 14
        if x + width > WIDTH and x > LEFT:
            x, y = LEFT, y + LEGEND
        yield Rectangle(x, y - 9, 10, 10, _colour(chart, number), series.name)
        yield Label(x + 16, y, name)
        x += width


def _colour(chart: Chart, number: int) -> int:
    return GREY if chart.series[number].others else number + 1

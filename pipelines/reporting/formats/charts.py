"""What the charts of a report show: one for each of its first measures, over time or by rank.

Sums (integers and amounts) are columns that are stacked; measured values have no sum, so they are lines. Of many groups
the largest are shown; the others are one group, `others`, where they can be added.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Literal

from pipelines.reporting.formats.texts import heading, time_text, value_text
from pipelines.reporting.formats.time_axis import times_of
from pipelines.reporting.report_table import ReportTable, Row, Value

#: Charts of a report, groups over time, and bars of a ranking.
MAX_CHARTS, MAX_SERIES, MAX_BARS = 6, 6, 20

#: The name of the groups that are not shown by themselves.
OTHERS = "others"

#: The name of a column with a quantile, such as `first_token_p95`.
QUANTILE = re.compile(r"(?P<measure>.+)_(?P<quantile>p\d+)")

ChartKind = Literal["columns", "lines", "bars"]


@dataclass(frozen=True, slots=True)
class Series:
    """The values of a group, None where it has none, or the sums of all groups that are not shown by themselves."""

    name: str
    values: Sequence[float | None]
    others: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: a value of each series for each label. The sum of others is below the bars of a ranking."""

    kind: ChartKind
    title: str
    labels: Sequence[str]
    series: Sequence[Series]


def charts_of(table: ReportTable) -> list[Chart]:
    """Return the charts of a report; none of one with a single row, or without groups."""
    times = [index for index, column in enumerate(table.columns) if column.type == "time"]
    groups = _varying(table, [index for index, column in enumerate(table.columns) if column.type == "text"])
    measures = _measures(table, split=bool(times) and not groups)[:MAX_CHARTS]
    if not measures or not table.rows or not (times or (groups and len(table.rows) > 1)):
        return []
    if not times:
        return [_ranking(table, groups, measure) for measure in measures]
    largest = _largest(_values_by_group(table, times[0], groups, measures[0].columns[0]))
    return [_over_time(table, times[0], groups, largest, measure) for measure in measures]


@dataclass(frozen=True, slots=True)
class Measure:
    """What a chart shows: a column, or several that are quantiles of the same values."""

    title: str
    columns: Sequence[int]
    adds_up: bool
    is_level: bool = False


def _measures(table: ReportTable, *, split: bool) -> list[Measure]:
    """Return the measures. Quantiles are lines of one chart; without `split`, the middle one of them is shown."""
    measures: list[Measure] = []
    quantiles: dict[str, list[int]] = {}
    for index, column in enumerate(table.columns):
        if match := QUANTILE.fullmatch(column.name):
            quantiles.setdefault(match["measure"], []).append(index)
        elif column.type not in ("time", "text"):
            measures.append(Measure(heading(column), [index], column.type != "number", column.is_level))
    for name, columns in quantiles.items():
        if split and len(columns) > 1:
            measures.append(Measure(heading(replace(table.columns[columns[0]], name=name)), columns, adds_up=False))
        else:
            middle = columns[len(columns) // 2]
            measures.append(Measure(heading(table.columns[middle]), [middle], adds_up=False))
    return measures


def _varying(table: ReportTable, groups: Sequence[int]) -> list[int]:
    """Return the columns whose values differ: not a currency that all rows have."""
    return [index for index in groups if len({row[index] for row in table.rows}) > 1]


def _values_by_group(
    table: ReportTable, time: int, groups: Sequence[int], measure: int
) -> dict[str, dict[Value, float | None]]:
    by_group: dict[str, dict[Value, float | None]] = {}
    for row in table.rows:
        by_group.setdefault(_group_name(table, groups, row), {})[row[time]] = _number(row[measure])
    return by_group


def _largest(by_group: Mapping[str, Mapping[Value, float | None]]) -> list[str]:
    """Return the groups to show, the same ones in each chart, so that each has its colour in all of them."""
    sizes = {name: sum(value or 0.0 for value in values.values()) for name, values in by_group.items()}
    limit = MAX_SERIES if len(sizes) == MAX_SERIES else MAX_SERIES - 1
    return sorted(sizes, key=lambda name: (-sizes[name], name))[:limit]


def _over_time(table: ReportTable, time: int, groups: Sequence[int], largest: Sequence[str], measure: Measure) -> Chart:
    times = times_of(table, time)
    labels = [time_text(table, each, table.interval) for each in times]
    if len(measure.columns) > 1:
        return Chart("lines", measure.title, labels, list(_quantile_lines(table, time, measure, times)))
    by_group = _values_by_group(table, time, groups, measure.columns[0])
    if measure.is_level:
        by_group = {name: _carried(values, times) for name, values in by_group.items()}
    series = [Series(name, [by_group[name].get(each) for each in times]) for name in largest]
    if measure.adds_up and len(by_group) > len(largest):
        others = [values for name, values in by_group.items() if name not in largest]
        series.append(Series(OTHERS, [sum(values.get(each) or 0.0 for values in others) for each in times], True))
    return Chart("columns" if measure.adds_up else "lines", measure.title, labels, series)


def _carried(values: Mapping[Value, float | None], times: Sequence[datetime]) -> dict[Value, float | None]:
    """Return the values of a level at all times: each holds until the next one."""
    carried: dict[Value, float | None] = {}
    level: float | None = None
    for time in times:
        level = values.get(time, level)
        carried[time] = level
    return carried


def _quantile_lines(table: ReportTable, time: int, measure: Measure, times: Sequence[datetime]) -> Iterator[Series]:
    for column in measure.columns:
        values = {row[time]: _number(row[column]) for row in table.rows}
        name = QUANTILE.fullmatch(table.columns[column].name)
        assert name is not None
        yield Series(name["quantile"], [values.get(each) for each in times])


def _ranking(table: ReportTable, groups: Sequence[int], measure: Measure) -> Chart:
    values = [(_group_name(table, groups, row), _number(row[measure.columns[0]])) for row in table.rows]
    known = [(name, value) for name, value in values if value is not None]
    ranked = sorted(known, key=lambda each: (-each[1], each[0]))
    top, rest = ranked[:MAX_BARS], ranked[MAX_BARS:]
    series = [Series("", [value for _, value in top])]
    if rest and measure.adds_up:
        series.append(Series(f"{len(rest):,} {OTHERS}", [sum(value for _, value in rest)], True))
    return Chart("bars", measure.title, [name for name, _ in top], series)


def _group_name(table: ReportTable, groups: Sequence[int], row: Row) -> str:
    return " · ".join(value_text(table, table.columns[index], row[index]) for index in groups)


def _number(value: Value) -> float | None:
    return float(value) if isinstance(value, int | float | Decimal) else None

"""What the charts of a report show: one for each of its first measures, over time or by rank.

Sums (integers and amounts) are columns that are stacked; measured values have no sum, so they are lines. Of many groups
the largest are shown; the others are one group, `others`, where they can be added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from pipelines.reporting.formats.texts import heading, time_text, value_text
from pipelines.reporting.report_table import Column, ReportTable, Row, Value

#: Charts of a report, groups over time, and bars of a ranking.
MAX_CHARTS, MAX_SERIES, MAX_BARS = 4, 6, 20

#: The name of the groups that are not shown by themselves.
OTHERS = "others"

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
    """Return the charts of a report; none of one without rows or without groups."""
    measures = [each for each in enumerate(table.columns) if each[1].type not in ("time", "text")][:MAX_CHARTS]
    groups = [index for index, column in enumerate(table.columns) if column.type == "text"]
    times = [index for index, column in enumerate(table.columns) if column.type == "time"]
    if not (table.rows and measures) or not (groups or times):
        return []
    if not times:
        return [_ranking(table, groups, *measure) for measure in measures]
    shown = _largest(_values_by_group(table, times[0], groups, measures[0][0]))
    return [_over_time(table, times[0], groups, shown, *measure) for measure in measures]


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


def _over_time(
    table: ReportTable, time: int, groups: Sequence[int], shown: Sequence[str], measure: int, column: Column
) -> Chart:
    by_group = _values_by_group(table, time, groups, measure)
    times = sorted({value for row in table.rows if isinstance(value := row[time], datetime)})
    labels = [time_text(table, each, table.interval) for each in times]
    series = [Series(name, [by_group[name].get(each) for each in times]) for name in shown]
    if column.type == "number":
        return Chart("lines", heading(column), labels, series)
    if len(by_group) > len(shown):
        others = [values for name, values in by_group.items() if name not in shown]
        series.append(Series(OTHERS, [sum(values.get(each) or 0.0 for values in others) for each in times], True))
    return Chart("columns", heading(column), labels, series)


def _ranking(table: ReportTable, groups: Sequence[int], measure: int, column: Column) -> Chart:
    values = [(_group_name(table, groups, row), _number(row[measure])) for row in table.rows]
    known = [(name, value) for name, value in values if value is not None]
    ranked = sorted(known, key=lambda each: (-each[1], each[0]))
    shown, rest = ranked[:MAX_BARS], ranked[MAX_BARS:]
    series = [Series("", [value for _, value in shown])]
    if rest and column.type != "number":
        series.append(Series(f"{len(rest):,} {OTHERS}", [sum(value for _, value in rest)], True))
    return Chart("bars", heading(column), [name for name, _ in shown], series)


def _group_name(table: ReportTable, groups: Sequence[int], row: Row) -> str:
    return " · ".join(value_text(table, table.columns[index], row[index]) for index in groups)


def _number(value: Value) -> float | None:
    return float(value) if isinstance(value, int | float | Decimal) else None

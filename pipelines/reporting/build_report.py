"""Read the table of a report. Call it in a transaction of one snapshot."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from typing import Any

from models.platform.database import Connection, fetch_one
from models.platform.errors import InvalidRequest
from models.reports import error_counts, histograms, memory_counts, revenue, usage_records, usage_sums
from models.reports.selection import Selection
from pipelines.reporting.report_request import Grouping, ReportKind, ReportRequest
from pipelines.reporting.report_table import Column, Period, ReportTable, Row, Value

#: The columns of sums that a grouping is by.
GROUP_COLUMNS: Mapping[Grouping, str] = {
    "account": "account_id",
    "user": "user_id",
    "key": "key_id",
    "agent": "agent",
    "model": "model",
    "class": "class",
    "kind": "job_kind",
}

#: Measures of latency, with the names of their columns and the unit.
MEASURES: Mapping[str, tuple[str, str]] = {
    "queue": ("queue_wait", "s"),
    "first_token": ("first_token", "s"),
    "speed": ("tokens_per_second", "tokens/s"),
}

#: The kind of jobs whose latency is reported unless the request filters by kind.
TURNS = "turn.run"


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows of sums by their group: the time, if there is one, and the values of the columns that group them."""

    selection: Selection

    def key(self, row: Mapping[str, Any]) -> tuple[Value, ...]:
        """Return the group of a row. An empty text is None: the record has no key, agent, …"""
        time = (self.selection.start_of(row["time"]),) if self.selection.interval else ()
        return (*time, *(row[group] or None for group in self.selection.groups))


@dataclass(frozen=True, slots=True)
class KindOfReport:
    """How a report is read.

    dimensions  the columns that it can be grouped and filtered by
    read        returns the columns after the groups, the rows, and the totals of these columns
    """

    title: str
    dimensions: Sequence[str]
    read: Callable[[Connection, Selection], tuple[Sequence[Column], Sequence[Row], Row]]


def build_report(connection: Connection, request: ReportRequest) -> ReportTable:
    """Return the table of a report. Raises InvalidRequest for a grouping or filter that the kind does not have."""
    kind = KINDS[request.kind]
    selection = _selection(request, kind)
    measured, rows, totals = kind.read(connection, selection)
    grouped = [Column(name, "text") for name in request.group_by]
    time = [Column("time", "time")] if request.interval else []
    leading = [*time, *grouped]
    snapshot = fetch_one(connection, "SELECT now() AS now")
    assert snapshot is not None
    return ReportTable(
        kind=request.kind,
        title=kind.title,
        columns=[*leading, *measured],
        rows=sorted(rows, key=_order),
        totals=[*([None] * len(leading)), *totals],
        period=Period(request.start, request.end),
        time_zone=request.time_zone,
        snapshot=snapshot["now"].astimezone(UTC),
        interval=request.interval,
    )


def check_request(request: ReportRequest) -> None:
    """Raise InvalidRequest for a grouping or filter that the kind of report does not have."""
    _selection(request, KINDS[request.kind])


def _selection(request: ReportRequest, kind: KindOfReport) -> Selection:
    filters = {_column(name, kind, "filters"): values for name, values in request.filters.items()}
    if request.account_id is not None:
        filters["account_id"] = _narrowed(filters.get("account_id"), request.account_id)
    if request.user_id is not None:
        filters[_column("user", kind, "user_id")] = _narrowed(filters.get("user_id"), request.user_id)
    groups = [_column(name, kind, "group_by") for name in request.group_by]
    return Selection(request.start, request.end, request.time_zone, request.interval, groups, filters)


def _narrowed(asked: Sequence[str] | None, only: str) -> Sequence[str]:
    """Return the values that a filter asks for, of which only one is allowed."""
    return [only] if asked is None or only in asked else []


def _column(name: Grouping, kind: KindOfReport, param: str) -> str:
    column = GROUP_COLUMNS[name]
    if column not in kind.dimensions:
        raise InvalidRequest(f"The report '{kind.title.lower()}' has no {name}.", param=param)
    return column


def _order(row: Row) -> list[tuple[bool, Any]]:
    """Return what rows are ordered by: all their values; None is last."""
    return [(value is None, value if value is not None else 0) for value in row]


def _rows(groups: Groups, rows: Iterable[Mapping[str, Any]], columns: Sequence[Column]) -> list[Row]:
    return [(*groups.key(row), *(_value(row, column) for column in columns)) for row in rows]


def _value(row: Mapping[str, Any], column: Column) -> Value:
    value: Value = row[column.name]
    return None if value == "" else value


def _sum(rows: Iterable[Mapping[str, Any]], column: Column) -> Value:
    if column.type not in ("integer", "decimal"):
        return None
    values: list[Decimal | int] = [row[column.name] for row in rows]
    return sum(values, Decimal() if column.type == "decimal" else 0)


def _totals(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Row:
    """Return the sums. Amounts have one if all are of one currency: rows without a currency have no amount."""
    currencies = {row["currency"] for row in rows if row.get("currency")}
    has_sum = len(currencies) <= 1
    totals = [_sum(rows, column) if has_sum or column.type != "decimal" else None for column in columns]
    return [next(iter(currencies)) if column.name == "currency" and len(currencies) == 1 else total
            for column, total in zip(columns, totals, strict=True)]  # fmt: skip


CURRENCY = Column("currency", "text")

USAGE = [
    CURRENCY,
    *(Column(name, "integer") for name in ("jobs", "input_tokens", "cached_tokens", "output_tokens")),
    Column("amount", "decimal"),
]


def _usage(connection: Connection, selection: Selection) -> tuple[Sequence[Column], Sequence[Row], Row]:
    rows = usage_sums.usage(connection, selection)
    return USAGE, _rows(Groups(selection), rows, USAGE), _totals(rows, USAGE)


REVENUE = [CURRENCY, *(Column(name, "decimal") for name in revenue.MOVEMENTS)]


def _revenue(connection: Connection, selection: Selection) -> tuple[Sequence[Column], Sequence[Row], Row]:
    rows = revenue.revenue(connection, selection)
    return REVENUE, _rows(Groups(selection), rows, REVENUE), _totals(rows, REVENUE)


#: What errors are grouped by in any case: the names of columns, by those of the sums.
ERROR_GROUPS: Mapping[str, str] = {"job_kind": "kind", "ended_state": "state", "error_code": "code"}


def _errors(connection: Connection, selection: Selection) -> tuple[Sequence[Column], Sequence[Row], Row]:
    groups = {column: name for column, name in ERROR_GROUPS.items() if column not in selection.groups}
    counts = error_counts.errors(connection, selection.with_groups(*groups))
    rows = [{**row, **{name: row[column] for column, name in groups.items()}} for row in counts]
    columns = [*(Column(name, "text") for name in groups.values()), Column("jobs", "integer")]
    return columns, _rows(Groups(selection), rows, columns), _totals(rows, columns)


LATENCY = [
    Column("turns", "integer"),
    *(Column(f"{name}_{quantile}", "number", unit)
      for name, unit in MEASURES.values() for quantile in histograms.QUANTILES),
]  # fmt: skip


def _latency(connection: Connection, selection: Selection) -> tuple[Sequence[Column], Sequence[Row], Row]:
    if "job_kind" not in selection.filters:
        selection = selection.with_filter("job_kind", [TURNS])
    samples = usage_sums.latency(connection, selection)
    by_group: dict[tuple[Value, ...], list[Mapping[str, Any]]] = {}
    for row in samples:
        by_group.setdefault(Groups(selection).key(row), []).append(row)
    return LATENCY, [(*key, *_quantiles(rows)) for key, rows in by_group.items()], _quantiles(samples)


def _quantiles(rows: Sequence[Mapping[str, Any]]) -> Row:
    """Return the number of turns, and the quantiles of each measure. Every turn has waited in its queue."""
    samples = {each: histograms.add_up(row for row in rows if row["measure"] == each) for each in MEASURES}
    quantiles = [
        histograms.quantile(samples[each], share) for each in MEASURES for share in histograms.QUANTILES.values()
    ]
    return [sum(samples["queue"].values()), *quantiles]


MEMORY = [Column("created", "integer"), Column("deleted", "integer"), Column("living", "integer", is_level=True)]


def _memory(connection: Connection, selection: Selection) -> tuple[Sequence[Column], Sequence[Row], Row]:
    """Return what was created and deleted, and how many memories lived at the end of each interval."""
    groups, overall = Groups(selection), selection.without_interval()
    living = {Groups(overall).key(row): row["living"] for row in memory_counts.before(connection, overall)}
    changes = {groups.key(row): row for row in memory_counts.changes(connection, selection)}
    unchanged: set[tuple[Value, ...]] = set() if selection.interval else set(living) - set(changes)
    rows: list[Row] = [(*key, 0, 0, living[key]) for key in unchanged]
    for key, row in sorted(changes.items(), key=lambda item: _order(item[0])):
        group = key[1:] if selection.interval else key
        living[group] = living.get(group, 0) + row["living"]
        rows.append((*key, row["created"], row["deleted"], living[group]))
    created, deleted = (sum(row[name] for row in changes.values()) for name in ("created", "deleted"))
    return MEMORY, rows, [created, deleted, sum(living.values())]


#: The kinds of reports.
KINDS: Mapping[ReportKind, KindOfReport] = {
    "usage": KindOfReport("Usage", usage_records.DIMENSIONS, _usage),
    "revenue": KindOfReport("Revenue", revenue.DIMENSIONS, _revenue),
    "latency": KindOfReport("Latency", usage_records.DIMENSIONS, _latency),
    "errors": KindOfReport("Errors", error_counts.DIMENSIONS, _errors),
    "memory": KindOfReport("Memory", memory_counts.DIMENSIONS, _memory),
}

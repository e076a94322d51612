"""Names beside the ids that rows are grouped by: a column `user_name` behind `user`, in the snapshot of the numbers.

Files for programs have both columns. Pages and PDFs have one, in which an id shows only what has no name, or one that
several have.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from models.platform.database import Connection
from models.reports.names import STATEMENTS, names_of
from pipelines.reporting.report_table import Column, ReportTable, Row, Value

SUFFIX = "_name"

#: Names of columns that documents show in another way.
CURRENCY, TIME = "currency", "time"


def with_names(connection: Connection, table: ReportTable, account_id: str | None) -> ReportTable:
    """Return the table with a column of names behind each column of ids that have names."""
    for name in (column.name for column in table.columns if column.type == "text" and column.name in STATEMENTS):
        table = _with_name_column(connection, table, name, account_id)
    return table


def _with_name_column(connection: Connection, table: ReportTable, kind: str, account_id: str | None) -> ReportTable:
    position = _position(table, kind)
    ids = {value for row in table.rows if isinstance(value := row[position], str)}
    names = names_of(connection, kind, sorted(ids), account_id)

    def insert(row: Row, value: Value) -> Row:
        return (*row[: position + 1], value, *row[position + 1 :])

    columns = [*table.columns[: position + 1], Column(kind + SUFFIX, "text"), *table.columns[position + 1 :]]
    rows = [insert(row, names.get(str(row[position]))) for row in table.rows]
    return replace(table, columns=columns, rows=rows, totals=insert(table.totals, None))


def for_people(table: ReportTable) -> ReportTable:
    """Return the table as documents show it.

    Names replace ids; an id follows a name that several of them have. A currency that all rows have is the unit of the
    amounts, and a column `time` is called after its interval.
    """
    for name in [column.name for column in table.columns if f"{column.name}{SUFFIX}" in _names(table)]:
        table = _with_labels(table, _position(table, name), _position(table, name + SUFFIX))
    if CURRENCY in _names(table):
        table = _with_currency_as_unit(table, _position(table, CURRENCY))
    called = [replace(each, name=table.interval or each.name) if each.name == TIME else each for each in table.columns]
    return replace(table, columns=called)


def _with_currency_as_unit(table: ReportTable, position: int) -> ReportTable:
    currencies = {row[position] for row in table.rows if row[position] is not None}
    if len(currencies) > 1:
        return table
    unit = str(next(iter(currencies), ""))
    table = _without(table, position)
    columns = [replace(each, unit=each.unit or unit) if each.type == "decimal" else each for each in table.columns]
    return replace(table, columns=columns)


def _without(table: ReportTable, position: int) -> ReportTable:
    def cut(row: Sequence[Any]) -> tuple[Any, ...]:
        return (*row[:position], *row[position + 1 :])

    return replace(table, columns=cut(table.columns), rows=[cut(row) for row in table.rows], totals=cut(table.totals))


def _with_labels(table: ReportTable, ids: int, names: int) -> ReportTable:
    by_id = {row[ids]: row[names] for row in table.rows}
    counts = Counter(by_id.values())
    labels = {
        key: key if name is None else name if counts[name] == 1 else f"{name} ({key})" for key, name in by_id.items()
    }

    def labelled(row: Row) -> Row:
        return (*row[:ids], labels.get(row[ids], row[ids]), *row[ids + 1 :])

    return _without(replace(table, rows=[labelled(row) for row in table.rows]), names)


def _names(table: ReportTable) -> set[str]:
    return {column.name for column in table.columns}


def _position(table: ReportTable, name: str) -> int:
    return next(index for index, column in enumerate(table.columns) if column.name == name)

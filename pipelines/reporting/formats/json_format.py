"""A report as JSON: rows as objects. Times have the offset of the report's zone, and amounts are strings, as exact."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson

from pipelines.reporting.formats.texts import local_time, plain_decimal
from pipelines.reporting.report_table import ReportTable, Value


def render_json(table: ReportTable) -> bytes:
    """Write a report as a JSON object."""
    report = {
        "object": "report.table",
        "kind": table.kind,
        "title": table.title,
        "period": {"start": _time(table, table.period.start), "end": _time(table, table.period.end)},
        "interval": table.interval,
        "time_zone": table.time_zone,
        "snapshot": _time(table, table.snapshot),
        "columns": [{"name": each.name, "type": each.type, "unit": each.unit or None} for each in table.columns],
        "rows": [_row(table, row) for row in table.rows],
        "totals": _row(table, table.totals),
    }
    return orjson.dumps(report, option=orjson.OPT_APPEND_NEWLINE)


def _row(table: ReportTable, row: Sequence[Value]) -> dict[str, Any]:
    return {column.name: _value(table, value) for column, value in zip(table.columns, row, strict=True)}


def _value(table: ReportTable, value: Value) -> Any:
    if isinstance(value, datetime):
        return _time(table, value)
    return f"{plain_decimal(value):f}" if isinstance(value, Decimal) else value


def _time(table: ReportTable, time: datetime) -> str:
    return local_time(table, time).isoformat()

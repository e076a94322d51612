"""A report as CSV (RFC 4180) in UTF-8, with a line of column names and without totals, which would be summed again.

A text that a spreadsheet would calculate gets an apostrophe, which spreadsheets hide. Numbers stay numbers.
"""

import csv
import io
from datetime import datetime
from decimal import Decimal

from pipelines.reporting.formats.texts import plain_decimal, time_text
from pipelines.reporting.report_table import ReportTable, Value

#: What a formula begins with, also in the full width of East Asian scripts. A tab or a line break is skipped by
#: programs that look for one behind it.
FORMULA_STARTS = frozenset("=+-@\t\r\n＝＋－＠")  # noqa: RUF001


def render_csv(table: ReportTable) -> bytes:
    """Write a report as CSV. Missing values are empty."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow([column.name for column in table.columns])
    writer.writerows([_cell(table, value) for value in row] for row in table.rows)
    return file.getvalue().encode()


def _cell(table: ReportTable, value: Value) -> str:
    if isinstance(value, datetime):
        return time_text(table, value, table.interval)
    if isinstance(value, Decimal):
        return f"{plain_decimal(value):f}"
    if isinstance(value, str):
        return guarded(value)
    return "" if value is None else repr(value)


def guarded(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula. Spaces in front do not hide one.

    A text that begins with an apostrophe gets another one, so that two names never look the same.
    """
    begin = text.lstrip(" \u00a0\ufeff")[:1]
    return f"'{text}" if (begin in FORMULA_STARTS and begin) or text.startswith("'") else text

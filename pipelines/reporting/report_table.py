"""A report as a table of typed values, which `formats` writes as JSON, CSV, Parquet, HTML or PDF.

The same table gives the same bytes in every format.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

#: What a column has: `time` is the start of an hour, a day or a month; `decimal` is an amount of money; `number` is
#: measured, as seconds are, so that its values have no sum.
ColumnType = Literal["time", "text", "integer", "decimal", "number"]

Value = datetime | str | int | Decimal | float | None
Row = Sequence[Value]

#: How long the times of a report are.
Interval = Literal["hour", "day", "month"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name in programs (`input_tokens`), its type, and the unit of its values, such as `EUR` or `s`.

    is_level  a value is that at the end of its interval, and holds until the next one
    """

    name: str
    type: ColumnType
    unit: str = ""
    is_level: bool = False


@dataclass(frozen=True, slots=True)
class Period:
    """The period of a report, from `start` until before `end`."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class ReportTable:
    """The result of a report.

    kind       of the report, such as `usage`
    columns    those that group the rows come first
    rows       a value for each column; times are aware
    totals     a value for each column, None where it has no total
    interval   the length of the times in a column of type `time`; None without such a column
    time_zone  the IANA name of the zone of hours, days and months
    snapshot   the time of the snapshot that the report was read from
    """

    kind: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    totals: Row
    period: Period
    time_zone: str
    snapshot: datetime
    interval: Interval | None = None

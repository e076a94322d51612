"""The values of reports as texts, for people and for files that people open."""

from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from pipelines.reporting.report_table import Column, Interval, ReportTable, Value

#: How the start of an interval is written. An hour has its offset: at the end of summer time there are two of a name.
TIME_FORMATS: dict[Interval | None, str] = {
    "month": "%Y-%m",
    "day": "%Y-%m-%d",
    "hour": "%Y-%m-%d %H:%M%:z",
    None: "%Y-%m-%d %H:%M:%S%:z",
}

#: The text in place of a missing name, such as that of usage without an agent or an API key.
NO_NAME = "(none)"

#: Short forms of large numbers, the largest first.
MAGNITUDES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def local_time(table: ReportTable, time: datetime) -> datetime:
    """Return a time in the zone of the report."""
    return time.astimezone(ZoneInfo(table.time_zone))


def time_text(table: ReportTable, time: datetime, interval: Interval | None) -> str:
    """Write the start of an interval in the zone of the report: `2026-10`, `2026-10-31`, `2026-10-31 09:00+01:00`."""
    local = local_time(table, time)
    text = local.strftime(TIME_FORMATS[interval].replace("%:z", ""))
    return text + local.isoformat()[-6:] if interval in ("hour", None) else text


def heading(column: Column) -> str:
    """Return the heading of a column: `Input tokens`, `Amount (EUR)`. A unit that the name has already is left out."""
    name = column.name.replace("_", " ").strip()
    name = name[:1].upper() + name[1:]
    of, per, _ = column.unit.partition("/")
    if not of or name.casefold().endswith(of) or (per and name.casefold().startswith(f"{of} per ")):
        return name
    return f"{name} ({column.unit})"


def value_text(table: ReportTable, column: Column, value: Value) -> str:
    """Write a value for people: with separators of thousands, and empty if it is missing."""
    if isinstance(value, datetime):
        return time_text(table, value, table.interval)
    if value is None:
        return NO_NAME if column.type == "text" else ""
    if isinstance(value, str):
        return value or NO_NAME
    return number_text(value)


def number_text(value: int | Decimal | float) -> str:
    """Write a number for people: `1,234`, `0.0125`. Amounts keep all digits; measured values have four."""
    if isinstance(value, Decimal):
        return f"{plain_decimal(value):,f}"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def plain_decimal(value: Decimal) -> Decimal:
    """Return an amount with at least two decimal places, and without zeros behind them."""
    places = max(2, -int(value.normalize().as_tuple().exponent)) if value else 2
    return value.quantize(Decimal(1).scaleb(-places))


def short_number(value: float) -> str:
    """Write a number of an axis in few characters: `1.5k`, `20M`."""
    for size, letter in MAGNITUDES:
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"

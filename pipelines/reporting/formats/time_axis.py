"""The hours, days or months of a chart: all of the period, also those without a row."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pipelines.reporting.report_table import Interval, ReportTable

HOUR = timedelta(hours=1)


def times_of(table: ReportTable, column: int) -> list[datetime]:
    """Return the starts of the intervals from the period's first one to that of the snapshot, and those of the rows."""
    times = {value for row in table.rows if isinstance(value := row[column], datetime)}
    if table.interval is not None:
        end = min(table.period.end, table.snapshot)
        times |= set(_starts(table.interval, table.period.start, end, ZoneInfo(table.time_zone)))
    return sorted(times)


def _starts(interval: Interval, start: datetime, end: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    local = start.astimezone(zone)
    if interval == "hour":
        yield from _hours(local.replace(minute=0, second=0, microsecond=0).astimezone(UTC), end)
        return
    day = local.replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    day = day.replace(day=1) if interval == "month" else day
    while (start_of_day := day.replace(tzinfo=zone).astimezone(UTC)) < end:
        yield start_of_day
        day = (day + timedelta(days=32)).replace(day=1) if interval == "month" else day + timedelta(days=1)


def _hours(hour: datetime, end: datetime) -> Iterator[datetime]:
    while hour < end:
        yield hour
        hour += HOUR

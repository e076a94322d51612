"""The facts above the table of a page or a PDF, and the note below it."""

from collections.abc import Sequence
from datetime import timedelta

from pipelines.reporting.formats.texts import time_text
from pipelines.reporting.report_table import ReportTable, Row


def facts_of(table: ReportTable) -> list[tuple[str, str]]:
    """Return the period, the zone, the rows and the time of the snapshot, by name."""
    return [
        ("Period", period_text(table)),
        ("Time zone", table.time_zone),
        ("Rows", f"{len(table.rows):,}"),
        ("As of", time_text(table, table.snapshot, None)),
    ]


def period_text(table: ReportTable) -> str:
    """Write the period: of whole days as its first and last day, otherwise with times."""
    start, end = (time_text(table, time, None) for time in (table.period.start, table.period.end))
    if start[11:19] == end[11:19] == "00:00:00":
        last = time_text(table, table.period.end - timedelta(microseconds=1), "day")
        return start[:10] if start[:10] == last else f"{start[:10]} to {last}"
    return f"{start} until {end}"


def limited_rows(table: ReportTable, limit: int) -> tuple[Sequence[Row], str]:
    """Return the first rows, and a note if there are more."""
    if len(table.rows) <= limit:
        return table.rows, ""
    note = (
        f"The first {limit:,} of {len(table.rows):,} rows. The totals are those of all; CSV and Parquet have all rows."
    )
    return table.rows[:limit], note

"""Report tables for tests: names of every kind, gaps, and as many rows as a test wants."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from pipelines.reporting.report_table import Column, Period, ReportTable

BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2026, 10, 1, tzinfo=BERLIN)

COLUMNS = (
    Column("day", "time"),
    Column("model", "text"),
    Column("jobs", "integer"),
    Column("amount", "decimal", "EUR"),
    Column("first_token_p50", "number", "s"),
)

#: Names that attack a spreadsheet or a page, or that few fonts have.
NAMES = ("llama", '=HYPERLINK("http://e.example","x")', "<script>alert(1)</script>", "مرحبا 漢字", "", None, "'quoted'")


def table(days: int = 3, names: tuple[str | None, ...] = ("llama", "phi"), title: str = "Usage by day") -> ReportTable:
    """Return a report of days and models. The first token of each third day was not measured."""
    rows = [
        (START + timedelta(days=day), name, day + number, Decimal(day * 7 + number).scaleb(-6), seconds(day))
        for day in range(days)
        for number, name in enumerate(names)
    ]
    totals = (None, None, sum(row[2] for row in rows), sum((row[3] for row in rows), Decimal(0)), None)
    return ReportTable(
        kind="usage",
        title=title,
        columns=COLUMNS,
        rows=rows,
        totals=totals,
        period=Period(START, START + timedelta(days=days)),
        time_zone="Europe/Berlin",
        snapshot=datetime(2026, 11, 28, 12, tzinfo=UTC),
        interval="day",
    )


def seconds(day: int) -> float | None:
    """Return a measured value, which each third day lacks."""
    return None if day % 3 == 2 else 0.25 + day / 64


def ranking(count: int) -> ReportTable:
    """Return a report of models without times."""
    report = table(1, tuple(f"model {number:04}" for number in range(count)))
    rows = [row[1:] for row in report.rows]
    return ReportTable(
        report.kind, report.title, report.columns[1:], rows, report.totals[1:], report.period, "UTC", report.snapshot
    )

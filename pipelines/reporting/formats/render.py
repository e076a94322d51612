"""Write a report in one of its formats."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from models.reports.reports import ReportFormat
from pipelines.reporting.formats.csv_format import render_csv
from pipelines.reporting.formats.html_page import render_page
from pipelines.reporting.formats.json_format import render_json
from pipelines.reporting.formats.texts import local_time
from pipelines.reporting.report_table import ReportTable

#: The media types of files.
CONTENT_TYPES: Mapping[ReportFormat, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
}


@dataclass(frozen=True, slots=True)
class RenderedReport:
    """A report as a file."""

    filename: str
    content_type: str
    content: bytes


def render(table: ReportTable, report_format: ReportFormat, fonts: Path | None = None) -> RenderedReport:
    """Write a report. `fonts` is a folder of fonts for a PDF.

    The name has only the report's kind and days, so that it is safe everywhere.
    """
    first, last = (
        f"{local_time(table, time):%Y-%m-%d}"
        for time in (table.period.start, table.period.end - timedelta(microseconds=1))
    )
    days = first if first == last else f"{first}-to-{last}"
    filename = f"sangha-{table.kind.replace('_', '-')}-{days}.{report_format}"
    return RenderedReport(filename, CONTENT_TYPES[report_format], _content(table, report_format, fonts))


def _content(table: ReportTable, report_format: ReportFormat, fonts: Path | None) -> bytes:
    if report_format == "json":
        return render_json(table)
    if report_format == "csv":
        return render_csv(table)
    if report_format == "html":
        return render_page(table)
    return _loaded_on_use(table, report_format, fonts)


def _loaded_on_use(table: ReportTable, report_format: ReportFormat, fonts: Path | None) -> bytes:
    """Write a format whose library takes memory and time to load."""
    if report_format == "parquet":
        from pipelines.reporting.formats.parquet_format import render_parquet

        return render_parquet(table)
    from pipelines.reporting.formats.pdf_document import render_pdf

    return render_pdf(table, fonts)

"""Read the table of a report."""

from models.platform.database import Connection
from models.platform.errors import InvalidRequest
from pipelines.reporting.report_request import ReportRequest
from pipelines.reporting.report_table import ReportTable


def build_report(connection: Connection, request: ReportRequest) -> ReportTable:
    """Return the table of a report. Raises InvalidRequest."""
    raise InvalidRequest(f"The report '{request.kind}' is not available.", param="kind", code="report_not_available")

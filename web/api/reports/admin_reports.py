"""`/admin/reports`: reports across accounts, for operators only."""

from starlette.responses import Response

from models.accounts import files
from models.accounts.files import File
from models.jobs.jobs import PLATFORM_ACCOUNT
from models.platform.errors import NotFound
from models.reports import reports
from models.reports.reports import Report
from models.schedules.schedules import database_time
from pipelines.reporting.enqueue_report import enqueue_operator_report
from web.api.reports.reports import not_found
from web.api.reports.schemas import (
    AdminCreateReport,
    ListReports,
    ReportDeleted,
    asked,
    report_object,
    requested_report,
)
from web.api.request import Request
from web.http import bodies
from web.http.file_content import ContentResponse
from web.http.paging import page_response
from web.http.queries import parse_query
from web.http.responses import json_response


def create(request: Request) -> Response:
    """`POST /admin/reports`: start a job that builds a report of all accounts, or of those in `filters.account`."""
    body = bodies.parse(request.body, AdminCreateReport)
    report_id, job_id = request.new_id("report"), request.new_id("job")
    with request.platform.database.transaction() as connection:
        enqueue_operator_report(
            connection, requested_report(body), request.caller, database_time(connection),
            report_id=report_id, job_id=job_id, asked=asked(body),
        )  # fmt: skip
    request.platform.queue.nudge(PLATFORM_ACCOUNT)
    return json_response(report_object(_read(request, report_id)), 202)


def list_reports(request: Request) -> Response:
    """`GET /admin/reports`: list the reports of operators, newest first."""
    query = parse_query(request.query, ListReports)
    with request.platform.database.connection() as connection:
        records = reports.page(
            connection, PLATFORM_ACCOUNT, kind=query.kind, after=query.after, limit=query.fetch_limit
        )
    return page_response(records, query.limit, report_object)


def read(request: Request) -> Response:
    """`GET /admin/reports/{id}`: read a report of operators, with its progress."""
    return json_response(report_object(_read(request, request.path_params["report_id"])))


def content(request: Request) -> Response:
    """`GET /admin/reports/{id}/content`: download the file of a report of operators."""
    return ContentResponse(request.platform.objects, _read_file(request), request.headers)


def delete(request: Request) -> Response:
    """`DELETE /admin/reports/{id}`: delete a report of operators with its file."""
    report = _read(request, request.path_params["report_id"])
    with request.platform.database.transaction() as connection:
        reports.delete(connection, report.id, PLATFORM_ACCOUNT)
        if report.file_id is not None:
            files.expire(connection, report.file_id, PLATFORM_ACCOUNT)
    deleted: ReportDeleted = {"id": report.id, "object": "report.deleted", "deleted": True}
    return json_response(deleted)


def _read(request: Request, report_id: str) -> Report:
    with request.platform.database.connection() as connection:
        report = reports.read(connection, report_id, PLATFORM_ACCOUNT)
    if report is None:
        raise not_found(report_id)
    return report


def _read_file(request: Request) -> File:
    report = _read(request, request.path_params["report_id"])
    if report.file_id is not None:
        with request.platform.database.connection() as connection:
            file = files.read_any(connection, report.file_id, PLATFORM_ACCOUNT)
        if file is not None:
            return file
    raise NotFound(f"The report '{report.id}' has no file: its status is '{report.status}'.", param="report_id")

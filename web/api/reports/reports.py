"""`/v1/reports`: have a report built, list, read and delete reports."""

from starlette.responses import Response

from models.accounts import files
from models.accounts.accounts import Caller
from models.accounts.files import FileAccess
from models.platform.errors import NotFound
from models.reports import reports
from models.reports.reports import Report
from models.schedules.schedules import database_time
from pipelines.reporting.enqueue_report import enqueue_report
from web.api.job_results import cancel_job
from web.api.reports.schemas import CreateReport, ListReports, ReportDeleted, asked, report_object, requested_report
from web.api.request import Request
from web.http import bodies
from web.http.paging import page_response
from web.http.queries import parse_query
from web.http.responses import json_response


def create(request: Request) -> Response:
    """`POST /v1/reports`: start a job that builds a report of the caller's usage, or for admins of the account's."""
    body = bodies.parse(request.body, CreateReport)
    report_id, job_id = request.new_id("report"), request.new_id("job")
    with request.platform.database.transaction() as connection:
        enqueue_report(
            connection, requested_report(body), request.caller, request.admission.limits, database_time(connection),
            report_id=report_id, job_id=job_id, asked=asked(body),
        )  # fmt: skip
    request.platform.queue.nudge(request.caller.account_id)
    return json_response(report_object(_read(request, report_id)), 202)


def list_reports(request: Request) -> Response:
    """`GET /v1/reports`: list the reports of the caller's own data, for admins all of the account's, newest first."""
    query = parse_query(request.query, ListReports)
    with request.platform.database.connection() as connection:
        records = reports.page(
            connection, request.caller.account_id, owner_id=owner_filter(request.caller), kind=query.kind,
            after=query.after, limit=query.fetch_limit,
        )  # fmt: skip
    return page_response(records, query.limit, report_object)


def read(request: Request) -> Response:
    """`GET /v1/reports/{id}`: read a report, with its progress or its file."""
    return json_response(report_object(_read(request, request.path_params["report_id"])))


def delete(request: Request) -> Response:
    """`DELETE /v1/reports/{id}`: delete a report with its file; its job is cancelled."""
    report = _read(request, request.path_params["report_id"])
    delete_report(request, report)
    deleted: ReportDeleted = {"id": report.id, "object": "report.deleted", "deleted": True}
    return json_response(deleted)


def owner_filter(caller: Caller) -> str | None:
    """Return the user whose reports a caller sees; None for those who see all of the account's."""
    return None if FileAccess.of(caller).admin else caller.user_id


def delete_report(request: Request, report: Report) -> None:
    """Delete a report, and let its file expire. A job that has not ended finds no report, and stores nothing."""
    with request.platform.database.transaction() as connection:
        reports.delete(connection, report.id, report.account_id)
        if report.file_id is not None:
            files.expire(connection, report.file_id, report.account_id)
    if report.status in ("queued", "in_progress"):
        cancel_job(request, report.job_id)


def _read(request: Request, report_id: str) -> Report:
    account_id = request.caller.account_id
    with request.platform.database.connection() as connection:
        report = reports.read(connection, report_id, account_id, owner_id=owner_filter(request.caller))
    if report is None:
        raise not_found(report_id)
    return report


def not_found(report_id: str) -> NotFound:
    """Return the error for a report that the caller cannot see."""
    return NotFound(f"Report with id '{report_id}' not found.", param="report_id")

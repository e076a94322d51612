"""Request and response schemas of `/v1/reports` and `/admin/reports`."""

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from models.reports.reports import Report, ReportFormat, ReportScope, ReportStatus
from pipelines.reporting.ranges import RangeName
from pipelines.reporting.report_request import Grouping, ReportKind
from pipelines.reporting.report_table import Interval
from pipelines.reporting.requested_report import RequestedReport
from pipelines.requests.validation import RequestBody
from web.http.paging import Listing
from web.http.timestamps import UnixTime, to_unix

#: An id or a name in a filter.
FilterValue = Annotated[str, Field(min_length=1, max_length=256)]

UserId = Annotated[str, Field(min_length=1, max_length=64)]


class AdminCreateReport(RequestBody):
    """The body of `POST /admin/reports`.

    kind        what the report is about
    format      of its file
    range       the period by its name; by default `this_month`
    start, end  the period in Unix seconds, from `start` until before `end`, instead of `range`
    time_zone   the IANA name of the zone of hours, days and months, and of `range`
    interval    a row for each hour, day or month; null: one for the whole period
    group_by    what else rows are grouped by
    filters     the ids or names that are included, by what they name: `{"model": ["default"]}`
    deliver_to  the ids of operators who get it by e-mail
    """

    kind: ReportKind
    format: ReportFormat = "json"
    range: RangeName | None = None
    start: UnixTime | None = None
    end: UnixTime | None = None
    time_zone: str = Field("UTC", max_length=100)
    interval: Interval | None = None
    group_by: list[Grouping] = Field([], max_length=4)
    filters: dict[Grouping, Annotated[list[FilterValue], Field(min_length=1, max_length=100)]] = Field({}, max_length=6)
    deliver_to: list[UserId] = Field([], max_length=20)


class CreateReport(AdminCreateReport):
    """The body of `POST /v1/reports`, and `work.report` of a schedule.

    kind        what the report is about
    format      of its file
    range       the period by its name; by default `this_month`
    start, end  the period in Unix seconds, from `start` until before `end`, instead of `range`
    time_zone   the IANA name of the zone of hours, days and months, and of `range`
    interval    a row for each hour, day or month; null: one for the whole period
    group_by    what else rows are grouped by
    filters     the ids or names that are included, by what they name: `{"model": ["default"]}`
    scope       `user`: the caller's own data; `account`: all members', for admins. By default what the caller may see
    deliver_to  the ids of members who get it by e-mail: admins; of one's own data only oneself
    """

    scope: ReportScope | None = None


class ListReports(Listing):
    """The query of `GET /v1/reports` and `GET /admin/reports`."""

    kind: ReportKind | None = None


class ReportError(TypedDict):
    """Why a report has no file."""

    code: str
    message: str


class ReportObject(TypedDict):
    """A report. `file_id` names its file once its status is `completed`; `rows` and `bytes` are those of the file, and
    `snapshot` is the time of its numbers. `request` is what was asked for. Times are in Unix seconds."""

    id: str
    object: Literal["report"]
    kind: str
    format: str
    scope: ReportScope
    status: ReportStatus
    start: int
    end: int
    time_zone: str
    request: dict[str, Any]
    user_id: str
    schedule_id: str | None
    job_id: str
    progress: dict[str, Any] | None
    error: ReportError | None
    file_id: str | None
    rows: int | None
    bytes: int | None
    snapshot: int | None
    deliver_to: list[str]
    created_at: int
    completed_at: int | None
    expires_at: int


class ReportDeleted(TypedDict):
    """A deleted report."""

    id: str
    object: Literal["report.deleted"]
    deleted: Literal[True]


def requested_report(body: AdminCreateReport) -> RequestedReport:
    """Return what a body asks for."""
    return RequestedReport(**body.model_dump())


def asked(body: AdminCreateReport) -> dict[str, Any]:
    """Return the fields that were sent, which are shown again."""
    return body.model_dump(mode="json", exclude_unset=True)


def report_object(report: Report) -> ReportObject:
    """Convert a report to its API object."""
    outcome = report.outcome
    return {
        "id": report.id,
        "object": "report",
        "kind": report.query["kind"],
        "format": report.format,
        "scope": report.scope,
        "status": report.status,
        "start": report.query["start"],
        "end": report.query["end"],
        "time_zone": report.query["time_zone"],
        "request": report.asked,
        "user_id": report.user_id,
        "schedule_id": report.schedule_id,
        "job_id": report.job_id,
        "progress": _progress(report),
        "error": _error(report),
        "file_id": report.file_id,
        "rows": outcome.get("rows"),
        "bytes": outcome.get("bytes"),
        "snapshot": outcome.get("snapshot"),
        "deliver_to": report.deliver_to,
        "created_at": int(report.created_at.timestamp()),
        "completed_at": to_unix(report.completed_at),
        "expires_at": int(report.expires_at.timestamp()),
    }


def _progress(report: Report) -> dict[str, Any] | None:
    """Return the job's progress without what only its next attempt needs."""
    return {name: value for name, value in report.progress.items() if name != "resume"} if report.progress else None


def _error(report: Report) -> ReportError | None:
    if report.status != "failed":
        return None
    if report.error is None:
        return {"code": "server_error", "message": "The report could not be built."}
    return {"code": report.error["code"], "message": report.error["message"]}

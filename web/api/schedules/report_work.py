"""Reports as the work of a schedule."""

from dataclasses import replace
from datetime import UTC, datetime

from models.platform.database import Connection
from models.platform.errors import InvalidRequest
from pipelines.reporting.requested_report import check_recipients, resolve
from pipelines.schedules.user_schedules import ScheduledWork
from web.api.reports.schemas import CreateReport, asked, requested_report
from web.api.request import Request


def report_work(request: Request, body: CreateReport) -> ScheduledWork:
    """Return the work of a body's report, with the scope that the caller has. Raises InvalidRequest and NotAllowed.

    The period depends on the time for which the schedule fires, so it has a name.
    """
    if body.start is not None or body.end is not None:
        param = "start" if body.start is not None else "end"
        message = "A scheduled report has a 'range', such as 'last_month', instead of 'start' and 'end'."
        raise InvalidRequest(message, param=param, code="unsupported_parameter")
    _, scope = resolve(requested_report(body), request.caller, datetime.now(UTC))
    requested = replace(requested_report(body), scope=scope)

    def check(connection: Connection) -> None:
        check_recipients(connection, request.caller, scope, requested.deliver_to)

    return ScheduledWork("report", {"report": asked(body)}, requested.to_json(), check)

"""Reports, of an account or across accounts, as the work of a schedule."""

from dataclasses import replace
from datetime import UTC, datetime

from models.platform.database import Connection
from models.platform.errors import InvalidRequest, NotAllowed
from pipelines.reporting.requested_report import check_operators, check_recipients, resolve, resolve_for_operator
from pipelines.requests.validation import missing_parameter
from pipelines.schedules.user_schedules import ScheduledWork
from web.api.reports.schemas import CreateReport, asked, requested_report
from web.api.request import Request


def operator_report_work(request: Request, body: CreateReport) -> ScheduledWork:
    """Return the work of a body's report across accounts. Raises InvalidRequest, and NotAllowed for other callers."""
    _check_range(body)
    if not request.caller.operator:
        raise NotAllowed("Only operators of the installation have reports across accounts.", code="operator_required")
    if body.scope is not None:
        message = "A report across accounts has no 'scope'."
        raise InvalidRequest(message, param="scope", code="unsupported_parameter")
    requested = requested_report(body)
    resolve_for_operator(requested, datetime.now(UTC))

    def check(connection: Connection) -> None:
        check_operators(connection, requested.deliver_to)

    return ScheduledWork("operator_report", {"report": asked(body)}, requested.to_json(), check)


def report_work(request: Request, body: CreateReport) -> ScheduledWork:
    """Return the work of a body's report, with the scope that the caller has. Raises InvalidRequest and NotAllowed."""
    _check_range(body)
    _, scope = resolve(requested_report(body), request.caller, datetime.now(UTC))
    requested = replace(requested_report(body), scope=scope)

    def check(connection: Connection) -> None:
        check_recipients(connection, request.caller, scope, requested.deliver_to)

    return ScheduledWork("report", {"report": asked(body)}, requested.to_json(), check)


def _check_range(body: CreateReport) -> None:
    """Raise InvalidRequest unless the period has a name: it depends on the time for which the schedule fires."""
    if body.range is None and body.start is None and body.end is None:
        raise missing_parameter("range")
    if body.start is not None or body.end is not None:
        param = "start" if body.start is not None else "end"
        message = "A scheduled report has a 'range', such as 'last_month', instead of 'start' and 'end'."
        raise InvalidRequest(message, param=param, code="unsupported_parameter")

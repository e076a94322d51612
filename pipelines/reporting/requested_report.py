"""A report as a user requests it: the period that its range means at a time, and who may read or receive it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from models.accounts import emails, members
from models.accounts.accounts import Caller, Role
from models.accounts.files import FileAccess
from models.jobs.jobs import PLATFORM_ACCOUNT
from models.platform.database import Connection
from models.platform.errors import InvalidRequest, NotAllowed
from models.platform.texts import truncate
from models.reports.reports import ReportFormat, ReportScope
from pipelines.reporting.build_report import check_request
from pipelines.reporting.ranges import RangeName, resolve_range
from pipelines.reporting.report_request import Grouping, ReportKind, ReportRequest
from pipelines.reporting.report_table import Interval
from pipelines.requests.validation import missing_parameter
from pipelines.schedules import cron

#: Days that a report may cover at most, by the length of its intervals.
MAX_DAYS: Mapping[Interval | None, int] = {"hour": 93, "day": 1100, "month": 3660, None: 3660}

#: What only admins see: the money of an account, and who its members are.
ACCOUNT_KINDS: frozenset[ReportKind] = frozenset({"revenue"})

#: The range of a request without one.
DEFAULT_RANGE: RangeName = "this_month"


@dataclass(frozen=True, slots=True)
class RequestedReport:
    """A report as it was asked for.

    range       named, or `start` and `end` in Unix seconds
    scope       None: the account's for those who may see it, otherwise the user's own
    deliver_to  the ids of users who get it by e-mail
    """

    kind: ReportKind
    format: ReportFormat
    range: RangeName | None = None
    start: int | None = None
    end: int | None = None
    time_zone: str = "UTC"
    interval: Interval | None = None
    group_by: Sequence[Grouping] = ()
    filters: Mapping[Grouping, Sequence[str]] = field(default_factory=dict)
    scope: ReportScope | None = None
    deliver_to: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as a schedule stores it: `RequestedReport(**stored)` is the same again."""
        return asdict(self)


def check_time_zone(time_zone: str) -> None:
    """Raise InvalidRequest for a zone that is not known."""
    if time_zone not in cron.time_zones():
        name = truncate(time_zone)
        message = f"Invalid value for 'time_zone': '{name}' is not an IANA time zone, such as 'Europe/Berlin'."
        raise InvalidRequest(message, param="time_zone")


def check_groups(requested: RequestedReport, *, operator: bool) -> None:
    """Raise InvalidRequest for groups that are named twice, or that are of several accounts."""
    if len(set(requested.group_by)) < len(requested.group_by):
        raise InvalidRequest("'group_by' should have each group once.", param="group_by")
    if not operator and "account" in (*requested.group_by, *requested.filters):
        raise InvalidRequest("Only reports of operators have several accounts.", param="group_by")


def resolve_period(requested: RequestedReport, now: datetime) -> tuple[datetime, datetime]:
    """Return the start and the end of the period. Raises InvalidRequest for one that is empty or too long."""
    if requested.start is None and requested.end is None:
        start, end = resolve_range(requested.range or DEFAULT_RANGE, requested.time_zone, now)
    else:
        start, end = _explicit_period(requested)
    if end - start > timedelta(days=MAX_DAYS[requested.interval]):
        by = f"by {requested.interval} " if requested.interval else ""
        message = f"The period is too long: a report {by}covers at most {MAX_DAYS[requested.interval]:,} days."
        raise InvalidRequest(message, param="range" if requested.range else "start", code="period_too_long")
    return start, end


def _explicit_period(requested: RequestedReport) -> tuple[datetime, datetime]:
    if requested.range is not None:
        raise InvalidRequest("Either 'range', or 'start' and 'end' can be given, not both.", param="range")
    if requested.start is None or requested.end is None:
        raise missing_parameter("start" if requested.start is None else "end")
    if requested.start >= requested.end:
        raise InvalidRequest("'start' should be before 'end'.", param="start")
    return datetime.fromtimestamp(requested.start, UTC), datetime.fromtimestamp(requested.end, UTC)


def resolve(requested: RequestedReport, caller: Caller, now: datetime) -> tuple[ReportRequest, ReportScope]:
    """Return what to build for a caller, and its scope. Raises InvalidRequest, and NotAllowed for others' data."""
    check_time_zone(requested.time_zone)
    check_groups(requested, operator=False)
    start, end = resolve_period(requested, now)
    scope = resolve_scope(requested, caller)
    user_id = caller.user_id if scope == "user" else None
    return _request(requested, start, end, account_id=caller.account_id, user_id=user_id), scope


def resolve_for_operator(requested: RequestedReport, now: datetime) -> ReportRequest:
    """Return what to build for an operator: of the accounts in the filters, or of all. Raises InvalidRequest."""
    check_time_zone(requested.time_zone)
    check_groups(requested, operator=True)
    start, end = resolve_period(requested, now)
    return _request(requested, start, end, account_id=None, user_id=None)


def _request(
    requested: RequestedReport, start: datetime, end: datetime, *, account_id: str | None, user_id: str | None
) -> ReportRequest:
    request = ReportRequest(
        kind=requested.kind,
        start=start,
        end=end,
        time_zone=requested.time_zone,
        interval=requested.interval,
        group_by=tuple(requested.group_by),
        filters=requested.filters,
        account_id=account_id,
        user_id=user_id,
    )
    check_request(request)
    return request


def resolve_scope(requested: RequestedReport, caller: Caller) -> ReportScope:
    """Return whose data a caller gets. Raises NotAllowed where they may not see it."""
    is_admin = FileAccess.of(caller).admin
    scope = requested.scope or ("account" if is_admin else "user")
    if scope == "account" and not is_admin:
        raise NotAllowed("Reports of the account need an admin, or an API key with the scope 'admin'.")
    if requested.kind in ACCOUNT_KINDS and scope != "account":
        raise NotAllowed(f"The report '{requested.kind}' is of the account: it needs an admin.")
    return scope


def check_recipients(connection: Connection, caller: Caller, scope: ReportScope, deliver_to: Sequence[str]) -> None:
    """Raise InvalidRequest for a recipient who may not read the report: one who is not a member, or no admin."""
    for user_id in deliver_to:
        if not may_receive(connection, caller.account_id, caller.user_id, scope, user_id):
            what = "an admin of the account" if scope == "account" else "yourself, as the report is of your own usage"
            message = f"Invalid value for 'deliver_to': '{truncate(user_id)}' should be {what}."
            raise InvalidRequest(message, param="deliver_to")


def check_operators(connection: Connection, deliver_to: Sequence[str]) -> None:
    """Raise InvalidRequest for a recipient of a report across accounts who is no operator."""
    for user_id in deliver_to:
        if not _is_operator(connection, user_id):
            message = f"Invalid value for 'deliver_to': '{truncate(user_id)}' should be an operator."
            raise InvalidRequest(message, param="deliver_to")


def _is_operator(connection: Connection, user_id: str) -> bool:
    user = emails.read_user(connection, user_id)
    return user is not None and user.operator


def may_receive(connection: Connection, account_id: str, requester: str, scope: ReportScope, user_id: str) -> bool:
    """Return whether a user may get a report by e-mail: now, as members leave and roles change.

    One of the platform's account has the data of all accounts.
    """
    if account_id == PLATFORM_ACCOUNT:
        return _is_operator(connection, user_id)
    member = members.read(connection, account_id, user_id)
    if member is None:
        return False
    return member.role.covers(Role.ADMIN) if scope == "account" else user_id == requester

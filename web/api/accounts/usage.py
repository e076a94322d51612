"""`GET /v1/account/usage`: tokens and money of this month, and usage by day, model, API key, member or agent."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NotRequired
from zoneinfo import ZoneInfo

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import files
from models.accounts.accounts import Caller, Role, Scope
from models.billing import billing_details, numbering, spending, usage_report
from models.billing.currencies import format_amount
from models.billing.usage_report import Grouping, UsageGroup
from models.jobs import quota
from models.platform.database import Connection
from models.platform.errors import InvalidRequest
from models.platform.texts import truncate
from pipelines.schedules import cron
from web.api.request import Request
from web.http.queries import RequestQuery, parse_query
from web.http.responses import json_response
from web.http.timestamps import UnixTime

#: The longest period of a report.
MAX_DAYS = 366


class ReadUsage(RequestQuery):
    """The query of `GET /v1/account/usage`.

    With `group_by` the answer has the groups of the jobs that ended from `start` until before `end`: by default of this
    calendar month, at most 366 days. Days, and this month, are those of `time_zone`, an IANA name, by default UTC.
    `after` is the key of the last group of the page before.
    """

    group_by: Grouping | None = None
    start: UnixTime | None = None
    end: UnixTime | None = None
    time_zone: str = Field("UTC", max_length=100)
    after: str | None = Field(None, max_length=256)
    limit: int = Field(100, ge=1, le=1000)


class UsageGroupObject(TypedDict):
    """The usage of a day (`2026-01-31`), or of what `key` names; null: of none."""

    key: str | None
    jobs: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    amount: str


class UsageReport(TypedDict):
    """Groups of usage. `user_id` is set where the caller sees only their own."""

    group_by: Grouping
    start: int
    end: int
    time_zone: str
    user_id: str | None
    data: Sequence[UsageGroupObject]
    has_more: bool


class AccountUsage(TypedDict):
    """Tokens of the calendar month (UTC): billed, reserved by unfinished jobs, and the limit, null if unlimited.

    `stored_bytes` are those of the account's files. `amount_spent` and `amount_reserved` are what the month's usage
    costs, and what unfinished jobs may cost where a spending limit is set; null for callers who see only their own
    usage. `report` is there with `group_by`.
    """

    object: Literal["account.usage"]
    month: str
    tokens_used: int
    tokens_reserved: int
    tokens_limit: int | None
    stored_bytes: int
    stored_bytes_limit: int | None
    currency: str
    amount_spent: str | None
    amount_reserved: str | None
    report: NotRequired[UsageReport]


def read_usage(request: Request) -> Response:
    """`GET /v1/account/usage`: read the account's usage of this month, and with `group_by` a report.

    Members, and API keys without the scope `billing`, see the amounts of their own usage only.
    """
    query, limits = parse_query(request.query, ReadUsage), request.admission.limits
    account_id = request.caller.account_id
    sees_all = _sees_all(request.caller)
    with request.platform.database.connection() as connection:
        tokens = quota.monthly_usage(connection, account_id)
        money = spending.monthly_spending(connection, account_id)
        currency = _currency(connection, account_id)
        body: AccountUsage = {
            "object": "account.usage",
            "month": f"{tokens.month:%Y-%m}",
            "tokens_used": tokens.used,
            "tokens_reserved": tokens.reserved,
            "tokens_limit": limits.tokens_per_month,
            "stored_bytes": files.stored_bytes(connection, account_id),
            "stored_bytes_limit": limits.stored_bytes,
            "currency": currency,
            "amount_spent": format_amount(money.spent, currency) if sees_all else None,
            "amount_reserved": format_amount(money.reserved, currency) if sees_all else None,
        }
        if query.group_by is not None:
            user_id = None if sees_all else request.caller.user_id
            body["report"] = _report(connection, account_id, query, query.group_by, user_id, currency)
    return json_response(body)


def _sees_all(caller: Caller) -> bool:
    return caller.role.covers(Role.ADMIN) and (caller.key_id is None or Scope.BILLING in caller.scopes)


def _currency(connection: Connection, account_id: str) -> str:
    details = billing_details.read(connection, account_id)
    return details.currency if details else numbering.read_seller(connection).default_currency


def _report(
    connection: Connection, account_id: str, query: ReadUsage, group_by: Grouping, user_id: str | None, currency: str
) -> UsageReport:
    start, end = _period(query)
    groups = usage_report.report(
        connection,
        account_id,
        group_by,
        start,
        end,
        user_id=user_id,
        time_zone=query.time_zone,
        after=query.after,
        limit=query.limit + 1,
    )
    return {
        "group_by": group_by,
        "start": int(start.timestamp()),
        "end": int(end.timestamp()),
        "time_zone": query.time_zone,
        "user_id": user_id,
        "data": [_group_object(group, currency) for group in groups[: query.limit]],
        "has_more": len(groups) > query.limit,
    }


def _period(query: ReadUsage) -> tuple[datetime, datetime]:
    """Return the period of a report. Raises InvalidRequest for one that is empty or too long, or an unknown zone."""
    if query.time_zone not in cron.time_zones():
        name = truncate(query.time_zone)
        message = f"Invalid value for 'time_zone': '{name}' is not an IANA time zone, such as 'Europe/Berlin'."
        raise InvalidRequest(message, param="time_zone")
    now = datetime.now(UTC)
    end = now + timedelta(seconds=1) if query.end is None else datetime.fromtimestamp(query.end, UTC)
    month = (
        min(now, end).astimezone(ZoneInfo(query.time_zone)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    )
    start = month if query.start is None else datetime.fromtimestamp(query.start, UTC)
    if start >= end:
        raise InvalidRequest("'start' should be before 'end'.", param="start")
    if end - start > timedelta(days=MAX_DAYS):
        raise InvalidRequest(f"The period should have at most {MAX_DAYS} days.", param="start")
    return start, end


def _group_object(group: UsageGroup, currency: str) -> UsageGroupObject:
    return {
        "key": group.key or None,
        "jobs": group.jobs,
        "input_tokens": group.input_tokens,
        "cached_tokens": group.cached_tokens,
        "output_tokens": group.output_tokens,
        "amount": format_amount(group.amount, currency),
    }

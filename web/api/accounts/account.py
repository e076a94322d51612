"""`/v1/account`: read and update the caller's account, and read its usage."""

from typing import Literal

from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import files, members
from models.accounts.members import Account
from models.accounts.plans import Limits
from models.jobs import quota
from web.api.accounts.names import PublicName
from web.api.request import Request
from web.http import bodies
from web.http.responses import json_response
from web.http.validation import RequestBody


class UpdateAccount(RequestBody):
    """The body of `PATCH /v1/account`. Omitted fields stay unchanged."""

    name: PublicName | None = None


class AccountPlan(TypedDict):
    """The plan that an account is on."""

    id: str
    name: str


class AccountLimits(TypedDict):
    """The limits of an account; null means unlimited."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    streams: int | None
    unfinished_jobs: int | None
    tokens_per_month: int | None
    stored_bytes: int | None
    unfinished_bytes: int | None
    memory_spaces: int | None


class AccountObject(TypedDict):
    """An account with its plan and limits. `created_at` is in Unix seconds."""

    id: str
    object: Literal["account"]
    name: str
    plan: AccountPlan
    limits: AccountLimits
    created_at: int


class AccountUsage(TypedDict):
    """Tokens of the calendar month (UTC): billed, reserved by unfinished jobs, and the limit, null if unlimited.

    `stored_bytes` are those of the account's files.
    """

    object: Literal["account.usage"]
    month: str
    tokens_used: int
    tokens_reserved: int
    tokens_limit: int | None
    stored_bytes: int
    stored_bytes_limit: int | None


def read(request: Request) -> Response:
    """`GET /v1/account`: read the account."""
    with request.platform.database.connection() as connection:
        account = members.read_account(connection, request.caller.account_id)
    assert account is not None, "the gate has just read it"
    return json_response(_account_object(account))


def update(request: Request) -> Response:
    """`PATCH /v1/account`: rename the account."""
    body = bodies.parse(request.body, UpdateAccount)
    if body.name is not None:
        with request.platform.database.connection() as connection:
            members.rename_account(connection, request.caller.account_id, body.name)
    return read(request)


def read_usage(request: Request) -> Response:
    """`GET /v1/account/usage`: read the account's token usage of this month."""
    with request.platform.database.connection() as connection:
        usage = quota.monthly_usage(connection, request.caller.account_id)
        stored_bytes = files.stored_bytes(connection, request.caller.account_id)
    body: AccountUsage = {
        "object": "account.usage",
        "month": f"{usage.month:%Y-%m}",
        "tokens_used": usage.used,
        "tokens_reserved": usage.reserved,
        "tokens_limit": request.admission.limits.tokens_per_month,
        "stored_bytes": stored_bytes,
        "stored_bytes_limit": request.admission.limits.stored_bytes,
    }
    return json_response(body)


def _account_object(account: Account) -> AccountObject:
    return {
        "id": account.id,
        "object": "account",
        "name": account.name,
        "plan": {"id": account.plan_id, "name": account.plan_name},
        "limits": limits_object(account.limits),
        "created_at": int(account.created_at.timestamp()),
    }


def limits_object(limits: Limits) -> AccountLimits:
    """Convert limits to their API object."""
    return {
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "streams": limits.streams,
        "unfinished_jobs": limits.unfinished_jobs,
        "tokens_per_month": limits.tokens_per_month,
        "stored_bytes": limits.stored_bytes,
        "unfinished_bytes": limits.unfinished_bytes,
        "memory_spaces": limits.memory_spaces,
    }

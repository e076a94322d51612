"""`/v1/account`: the account that a token or key is for, and what it may use."""

from typing import Literal

from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import members
from models.accounts.members import Account
from models.accounts.plans import Limits
from web.api.accounts.names import PublicName
from web.api.request import Request
from web.http import bodies
from web.http.responses import json_response
from web.http.validation import Body


class UpdateAccount(Body):
    """The body of `PATCH /v1/account`; what is left out stays."""

    name: PublicName | None = None


class AccountPlan(TypedDict):
    """What an account is subscribed to."""

    id: str
    name: str


class AccountLimits(TypedDict):
    """How much the account may use; null is no limit."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    streams: int | None
    unfinished_jobs: int | None
    tokens_per_month: int | None


class AccountObject(TypedDict):
    """An account."""

    id: str
    object: Literal["account"]
    name: str
    plan: AccountPlan
    limits: AccountLimits
    created_at: int


def read(request: Request) -> Response:
    """`GET /v1/account`."""
    with request.platform.database.connection() as connection:
        account = members.read_account(connection, request.caller.account_id)
    assert account is not None, "the gate has just seen it"
    return json_response(_account_object(account))


def change(request: Request) -> Response:
    """`PATCH /v1/account`: another name."""
    body = bodies.parse(request.body, UpdateAccount)
    if body.name is not None:
        with request.platform.database.connection() as connection:
            members.rename_account(connection, request.caller.account_id, body.name)
    return read(request)


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
    """Limits as they are told."""
    return {
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "streams": limits.streams,
        "unfinished_jobs": limits.unfinished_jobs,
        "tokens_per_month": limits.tokens_per_month,
    }

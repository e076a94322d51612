"""`/v1/account`: read and update the caller's account."""

from typing import Literal

from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import members
from models.accounts.members import Account
from models.accounts.plans import Limits
from models.accounts.residency import Residency
from pipelines.requests.validation import RequestBody
from pipelines.routing.residency import change_account
from web.api.accounts.names import PublicName
from web.api.request import Request
from web.http import bodies
from web.http.responses import json_response


class UpdateAccount(RequestBody):
    """The body of `PATCH /v1/account`. Omitted fields stay unchanged.

    With `residency` `local` no turn leaves the operator's network, also none that waits for an endpoint already; null:
    as the installation's settings say.
    """

    name: PublicName | None = None
    residency: Residency | None = None


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
    residency: Residency | None
    created_at: int


def read(request: Request) -> Response:
    """`GET /v1/account`: read the account."""
    with request.platform.database.connection() as connection:
        account = members.read_account(connection, request.caller.account_id)
    assert account is not None, "the gate has just read it"
    return json_response(_account_object(account))


def update(request: Request) -> Response:
    """`PATCH /v1/account`: rename the account, and change its residency."""
    body = bodies.parse(request.body, UpdateAccount)
    if body.name is not None:
        with request.platform.database.connection() as connection:
            members.rename_account(connection, request.caller.account_id, body.name)
    if "residency" in body.model_fields_set:
        platform = request.platform
        lanes = change_account(platform.settings, platform.database, request.caller, body.residency, request.origin)
        if lanes:
            platform.queue.nudge(*lanes)
    return read(request)


def _account_object(account: Account) -> AccountObject:
    return {
        "id": account.id,
        "object": "account",
        "name": account.name,
        "plan": {"id": account.plan_id, "name": account.plan_name},
        "limits": limits_object(account.limits),
        "residency": account.account_residency,
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

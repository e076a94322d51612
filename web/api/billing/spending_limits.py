"""`/billing/spending_limits`: what an account, or one of its API keys, may spend in a month."""

from typing import Literal

from starlette.responses import Response
from typing_extensions import TypedDict

from models.billing import spending
from models.billing.currencies import format_amount
from models.billing.spending import SpendingLimit
from models.platform.database import Connection
from models.platform.errors import NotFound
from models.platform.texts import truncate
from pipelines.billing import spending_limits
from pipelines.requests.validation import RequestBody
from web.api.billing.amounts import Amount
from web.api.request import Request
from web.http import bodies
from web.http.responses import json_response, page_object

#: The name of the account's own scope in the API.
ACCOUNT = "account"


class PutSpendingLimit(RequestBody):
    """The body of `PUT /billing/spending_limits/{scope}`: an amount per calendar month (UTC), in the account's
    currency."""

    amount: Amount


class SpendingLimitObject(TypedDict):
    """A limit per month, what was spent of it this month, and what unfinished jobs have reserved.

    `id` is the scope: `account` or `key:ID`. `notified_percent` is what the account's admins were last notified of this
    month.
    """

    id: str
    object: Literal["spending_limit"]
    amount: str
    currency: str
    spent: str
    reserved: str
    notified_percent: int


class SpendingLimitDeleted(TypedDict):
    """A deleted limit."""

    id: str
    object: Literal["spending_limit.deleted"]
    deleted: bool


def list_limits(request: Request) -> Response:
    """`GET /billing/spending_limits`: list the limits that the account has set."""
    account_id = request.caller.account_id
    with request.platform.database.connection() as connection:
        limits = spending.read_limits(connection, account_id)
        return json_response(page_object([_limit_object(connection, account_id, limit) for limit in limits]))


def put_limit(request: Request) -> Response:
    """`PUT /billing/spending_limits/{scope}`: set the limit of `account` or `key:ID`, from the next request on."""
    amount, scope = bodies.parse(request.body, PutSpendingLimit).amount, _scope(request)
    database, caller = request.platform.database, request.caller
    limit = spending_limits.put(database, caller, scope, amount, request.origin)
    with database.connection() as connection:
        return json_response(_limit_object(connection, caller.account_id, limit))


def delete_limit(request: Request) -> Response:
    """`DELETE /billing/spending_limits/{scope}`: remove a limit."""
    spending_limits.remove(request.platform.database, request.caller, _scope(request), request.origin)
    deleted: SpendingLimitDeleted = {
        "id": request.path_params["scope"],
        "object": "spending_limit.deleted",
        "deleted": True,
    }
    return json_response(deleted)


def _scope(request: Request) -> str:
    """Return the scope of the path as it is stored. Raises NotFound for one that does not exist."""
    scope = request.path_params["scope"]
    if scope != ACCOUNT and not scope.startswith("key:"):
        raise NotFound(f"'{truncate(scope)}' is no scope of spending limits: use 'account' or 'key:ID'.", param="scope")
    return "" if scope == ACCOUNT else scope


def _limit_object(connection: Connection, account_id: str, limit: SpendingLimit) -> SpendingLimitObject:
    now = spending.monthly_spending(connection, account_id, limit.scope)
    return {
        "id": limit.scope or ACCOUNT,
        "object": "spending_limit",
        "amount": format_amount(limit.amount, limit.currency),
        "currency": limit.currency,
        "spent": format_amount(now.spent, limit.currency),
        "reserved": format_amount(now.reserved, limit.currency),
        "notified_percent": limit.notified_percent,
    }

"""`/v1/account/usage`: what the account has used this month."""

from starlette.responses import Response
from typing_extensions import TypedDict

from models.jobs import quota
from web.api.request import Request
from web.http.responses import json_response


class AccountUsage(TypedDict):
    """Tokens of the calendar month (UTC): billed, reserved by what is unfinished, and the most there may be."""

    object: str
    month: str
    tokens_used: int
    tokens_reserved: int
    tokens_limit: int | None


def read(request: Request) -> Response:
    """`GET /v1/account/usage`."""
    with request.platform.database.connection() as connection:
        now = quota.monthly_usage(connection, request.caller.account_id)
    told: AccountUsage = {
        "object": "account.usage",
        "month": f"{now.month:%Y-%m}",
        "tokens_used": now.used,
        "tokens_reserved": now.reserved,
        "tokens_limit": request.admission.limits.tokens_per_month,
    }
    return json_response(told)

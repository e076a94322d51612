"""Spending limits that an account's admins set, each change recorded in the audit log."""

from decimal import Decimal

from models.access import api_keys
from models.accounts import audit
from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.billing import billing_details, spending
from models.billing.currencies import MAX_AMOUNT, ZERO, format_amount, minor_digits, rounded
from models.billing.spending import SpendingLimit
from models.platform.database import Connection, Database
from models.platform.errors import InvalidRequest, NotFound


def put(database: Database, caller: Caller, scope: str, amount: Decimal, origin: RequestOrigin) -> SpendingLimit:
    """Set a limit of the caller's account or of one of its API keys. From then on the account's usage is billed.

    Raises InvalidRequest for an amount that cannot be paid, and NotFound for a key that the account does not have.
    """
    with database.transaction() as connection:
        details = billing_details.ensure(connection, caller.account_id)
        _check_amount(amount, details.currency)
        _check_scope(connection, caller.account_id, scope)
        spending.set_limit(connection, caller.account_id, scope, amount)
        _record(connection, "spending_limit.set", caller, origin, scope, amount)
        limits = spending.read_limits(connection, caller.account_id)
    return next(limit for limit in limits if limit.scope == scope)


def remove(database: Database, caller: Caller, scope: str, origin: RequestOrigin) -> None:
    """Remove a limit. Raises NotFound if there is none."""
    with database.transaction() as connection:
        if not spending.delete_limit(connection, caller.account_id, scope):
            raise NotFound("There is no such spending limit.", param="scope")
        _record(connection, "spending_limit.removed", caller, origin, scope, None)


def _check_amount(amount: Decimal, currency: str) -> None:
    """Accept zero, which stops all that costs anything."""
    if not amount.is_finite() or not ZERO <= amount <= MAX_AMOUNT:
        raise InvalidRequest(f"'amount' should be from 0 to {MAX_AMOUNT}.", param="amount")
    if amount != rounded(amount, currency):
        message = f"'amount' has more than the {minor_digits(currency)} decimal digits of {currency}."
        raise InvalidRequest(message, param="amount")


def _check_scope(connection: Connection, account_id: str, scope: str) -> None:
    kind, _, name = scope.partition(":")
    if kind == "key" and api_keys.read(connection, name, account_id) is None:
        raise NotFound(f"API key with id '{name}' not found.", param="scope")


def _record(
    connection: Connection, action: str, caller: Caller, origin: RequestOrigin, scope: str, amount: Decimal | None
) -> None:
    audit.record(
        connection,
        action,
        origin,
        account_id=caller.account_id,
        user_id=caller.user_id,
        target=scope or caller.account_id,
        details={"by_key": caller.key_id, "amount": None if amount is None else format_amount(amount)},
    )

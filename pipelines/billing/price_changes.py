"""Operators' changes of prices, each recorded in the audit log."""

from models.accounts import audit
from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.billing import prices
from models.billing.currencies import format_amount
from models.billing.prices import NewPrice, Price
from models.platform.database import Connection, Database


def add(database: Database, caller: Caller, new: NewPrice, origin: RequestOrigin) -> Price:
    """Add a price for an operator. Raises InvalidRequest and Conflict, as `prices.add_price` does."""
    with database.transaction() as connection:
        price = prices.add_price(connection, new)
        record(connection, price, origin, account_id=caller.account_id, user_id=caller.user_id)
    return price


def record(
    connection: Connection, price: Price, origin: RequestOrigin, *, account_id: str, user_id: str | None
) -> None:
    """Record a new price in the audit log."""
    details = {
        "model": price.model,
        "endpoint": price.endpoint,
        "service_class": price.service_class,
        "currency": price.currency,
        "input": format_amount(price.input),
        "cached_input": format_amount(price.cached_input),
        "output": format_amount(price.output),
        "valid_from": price.valid_from.isoformat(),
    }
    audit.record(
        connection, "price.added", origin, account_id=account_id, user_id=user_id, target=price.id, details=details
    )

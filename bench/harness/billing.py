"""Bill accounts of a running platform: a price of its model, and billing details."""

from collections.abc import Iterable
from decimal import Decimal

from models.billing import billing_details, prices, spending
from models.billing.prices import NewPrice
from models.platform.database import Database

CURRENCY = "EUR"


def bill_accounts(
    database: Database, model: str, accounts: Iterable[str], *, price: Decimal, limit: Decimal | None = None
) -> None:
    """Bill accounts from now on; `price` is that of a million tokens of any kind, `limit` that of each one's month."""
    with database.transaction() as connection:
        if prices.price_at(connection, model, CURRENCY, None) is None:
            prices.add_price(connection, NewPrice(model, CURRENCY, price, price))
        for account_id in accounts:
            billing_details.ensure(connection, account_id, CURRENCY)
            if limit is not None:
                spending.set_limit(connection, account_id, "", limit)

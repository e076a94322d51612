"""`sangha prices`: list prices and add them."""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

import click

from models.accounts.audit import RequestOrigin
from models.billing import prices
from models.billing.currencies import format_amount
from models.billing.prices import NewPrice, Price
from models.jobs.jobs import PLATFORM_ACCOUNT
from models.platform.errors import ConfigurationError, RequestError
from models.platform.settings import Settings
from ops.database_connection import transaction
from ops.table import align_columns
from pipelines.billing import price_changes

HEADINGS = ("model", "endpoint", "class", "currency", "input", "cached", "output", "from", "id")


def list_prices(settings: Settings, *, model: str | None, limit: int) -> None:
    """Print one line per price, of all times, newest first."""
    with transaction(settings) as connection:
        rows = prices.list_prices(connection, model=model, limit=limit)
    if not rows:
        click.echo("No prices. Add one: sangha prices set MODEL --currency EUR --input 0.20 --output 0.60")
        return
    click.echo("\n".join(align_columns([HEADINGS, *map(_row, rows)], right={4, 5, 6})))


def set_price(settings: Settings, new: NewPrice) -> None:
    """Add a price. Raises ConfigurationError for invalid values."""
    try:
        with transaction(settings) as connection:
            price = prices.add_price(connection, new)
            price_changes.record(connection, price, RequestOrigin(), account_id=PLATFORM_ACCOUNT, user_id=None)
    except RequestError as error:
        raise ConfigurationError(error.message) from None
    click.echo("\n".join(align_columns([HEADINGS, _row(price)], right={4, 5, 6})))


def parse_amount(text: str) -> Decimal:
    """Parse an amount of money. Raises ConfigurationError."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ConfigurationError(f"'{text}' is no decimal number, such as 0.20") from None


def parse_time(text: str) -> datetime:
    """Parse a time of ISO 8601, in UTC unless it names an offset. Raises ConfigurationError."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"'{text}' is no time of ISO 8601, such as 2026-12-01T00:00") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _row(price: Price) -> list[object]:
    return [
        price.model,
        price.endpoint or "any",
        price.service_class,
        price.currency,
        *(format_amount(amount, price.currency) for amount in (price.input, price.cached_input, price.output)),
        f"{price.valid_from:%Y-%m-%d %H:%M:%S%z}",
        price.id,
    ]

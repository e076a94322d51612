"""`GET /v1/prices`: what a million tokens cost the caller's account."""

from typing import Literal

from starlette.responses import Response
from typing_extensions import TypedDict

from models.billing import billing_details, numbering, prices
from models.billing.currencies import format_amount
from models.billing.prices import Price
from models.jobs.usage import ServiceClass
from models.platform.database import Connection
from web.api.request import Request
from web.http.paging import Listing, page_response
from web.http.queries import parse_query


class PriceObject(TypedDict):
    """A price per million tokens, in force from `valid_from` until a later one for the same replaces it.

    `endpoint` is the upstream that it is for; null: all that have no price of their own. A class without a price has
    that of `standard`.
    """

    id: str
    object: Literal["price"]
    model: str
    endpoint: str | None
    service_class: ServiceClass
    currency: str
    input: str
    cached_input: str
    output: str
    valid_from: int
    created_at: int


def list_prices(request: Request) -> Response:
    """`GET /v1/prices`: list the prices in the account's currency that are in force, and those announced."""
    query = parse_query(request.query, Listing)
    with request.platform.database.connection() as connection:
        currency = currency_of(connection, request.caller.account_id)
        records = prices.list_current(connection, currency, after=query.after, limit=query.fetch_limit)
    return page_response(records, query.limit, price_object)


def currency_of(connection: Connection, account_id: str) -> str:
    """Return the account's currency: the seller's default while it has none."""
    details = billing_details.read(connection, account_id)
    return details.currency if details else numbering.read_seller(connection).default_currency


def price_object(price: Price) -> PriceObject:
    """Convert a price to its API object."""
    return {
        "id": price.id,
        "object": "price",
        "model": price.model,
        "endpoint": price.endpoint or None,
        "service_class": price.service_class,
        "currency": price.currency,
        "input": format_amount(price.input, price.currency),
        "cached_input": format_amount(price.cached_input, price.currency),
        "output": format_amount(price.output, price.currency),
        "valid_from": int(price.valid_from.timestamp()),
        "created_at": int(price.created_at.timestamp()),
    }

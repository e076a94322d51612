"""`/admin/billing/prices`: operators list and add prices."""

from pydantic import Field
from starlette.responses import Response

from models.billing import prices
from models.billing.prices import NewPrice
from models.jobs.usage import ServiceClass
from pipelines.billing import price_changes
from pipelines.requests.validation import RequestBody
from web.api.billing.amounts import Amount, Currency
from web.api.billing.prices import price_object
from web.api.request import Request
from web.http import bodies
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response
from web.http.timestamps import UnixTime, from_unix


class ListAllPrices(Listing):
    """The query of `GET /admin/billing/prices`."""

    model: str | None = Field(None, max_length=256)
    currency: Currency | None = None


class PutPrice(RequestBody):
    """The body of `PUT /admin/billing/prices`: a price per million tokens from a time on.

    Without `cached_input` cached tokens cost what others do. Without `valid_from` it begins at once; one that replaces
    a price in force begins after 60 seconds.
    """

    model: str = Field(min_length=1, max_length=256)
    endpoint: str | None = Field(None, min_length=1, max_length=64)
    service_class: ServiceClass = "standard"
    currency: Currency
    input: Amount
    cached_input: Amount | None = None
    output: Amount
    valid_from: UnixTime | None = None


def list_prices(request: Request) -> Response:
    """`GET /admin/billing/prices`: list the prices of all times, newest first."""
    query = parse_query(request.query, ListAllPrices)
    currency = query.currency.upper() if query.currency else None
    with request.platform.database.connection() as connection:
        records = prices.list_prices(
            connection, model=query.model, currency=currency, after=query.after, limit=query.fetch_limit
        )
    return page_response(records, query.limit, price_object)


def put_price(request: Request) -> Response:
    """`PUT /admin/billing/prices`: add a price, which replaces the one in force when it begins."""
    body = bodies.parse(request.body, PutPrice)
    new = NewPrice(
        model=body.model,
        currency=body.currency,
        input=body.input,
        output=body.output,
        cached_input=body.cached_input,
        endpoint=body.endpoint or "",
        service_class=body.service_class,
        valid_from=from_unix(body.valid_from),
    )
    price = price_changes.add(request.platform.database, request.caller, new, request.origin)
    return json_response(price_object(price))

"""The routes of prices, quotes and spending limits."""

from pipelines.requests.turn_request import CreateResponse
from web.access.rights import Rights
from web.api.billing import admin_prices, prices, quotes, spending_limits
from web.api.billing.prices import PriceObject
from web.api.billing.spending_limits import SpendingLimitObject
from web.api.routing import Route
from web.http.paging import Listing
from web.http.responses import Page

METERING_ROUTES = (
    Route("GET", "/v1/prices", prices.list_prices, Rights.READ, query=Listing, response=Page[PriceObject]),
    Route("POST", "/v1/quotes", quotes.create, Rights.INFERENCE, body=CreateResponse, response=quotes.QuoteObject),
    Route("GET", "/billing/spending_limits", spending_limits.list_limits, Rights.BILLING,
          response=Page[SpendingLimitObject]),
    Route("PUT", "/billing/spending_limits/{scope}", spending_limits.put_limit, Rights.BILLING,
          body=spending_limits.PutSpendingLimit, response=SpendingLimitObject),
    Route("DELETE", "/billing/spending_limits/{scope}", spending_limits.delete_limit, Rights.BILLING,
          response=spending_limits.SpendingLimitDeleted),
    Route("GET", "/admin/billing/prices", admin_prices.list_prices, Rights.OPERATOR, query=admin_prices.ListAllPrices,
          response=Page[PriceObject]),
    Route("PUT", "/admin/billing/prices", admin_prices.put_price, Rights.OPERATOR, body=admin_prices.PutPrice,
          response=PriceObject),
)  # fmt: skip

"""Prices per million tokens, by model, endpoint, service class and currency.

A row is never changed or deleted: one with a later time replaces it from then on. So what a job costs depends only on
the time at which it was created.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from models.billing.currencies import ZERO, check_currency
from models.jobs.usage import ServiceClass
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import Conflict, InvalidRequest
from models.platform.ids import new_id
from models.platform.records import columns

#: The largest price per million tokens, and its decimal digits at most: costs are then exact in 28 digits.
MAX_PRICE, MAX_DIGITS = Decimal(1_000_000), 8

#: Seconds from which on a price may replace one in force. Its row must be visible to all before it applies.
NOTICE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Price:
    """A row of `prices`. An empty `endpoint` stands for any. `input`, `cached_input` and `output` are per million."""

    id: str
    model: str
    endpoint: str
    service_class: ServiceClass
    currency: str
    input: Decimal
    cached_input: Decimal
    output: Decimal
    valid_from: datetime
    created_at: datetime

    def cost(self, input_tokens: int, cached_tokens: int, output_tokens: int) -> Decimal:
        """Return the exact cost of tokens. The cached tokens are among the input tokens."""
        total = (input_tokens - cached_tokens) * self.input + cached_tokens * self.cached_input
        return (total + output_tokens * self.output).scaleb(-6)

    def highest_cost(self, input_tokens: int, output_tokens: int, context: int | None = None) -> Decimal:
        """Return the most that at most these tokens cost, of which at most `context` together are used."""
        input_price = max(self.input, self.cached_input)
        if context is not None:
            input_tokens, output_tokens = min(input_tokens, context), min(output_tokens, context)
            if self.output >= input_price:
                input_tokens = min(input_tokens, context - output_tokens)
            else:
                output_tokens = min(output_tokens, context - input_tokens)
        return (input_tokens * input_price + output_tokens * self.output).scaleb(-6)


COLUMNS = columns(Price)

# A price of the class before one of the standard class, and one of the endpoint before one of any.
PRICE_AT = f"""
SELECT {COLUMNS} FROM prices
WHERE model = %(model)s AND currency = %(currency)s AND service_class IN (%(service_class)s, 'standard')
  AND endpoint IN (%(endpoint)s, '') AND valid_from <= coalesce(%(at)s::timestamptz, now())
ORDER BY service_class <> %(service_class)s, endpoint = '', valid_from DESC LIMIT 1
"""


def price_at(
    connection: Connection,
    model: str,
    currency: str,
    at: datetime | None,
    *,
    service_class: ServiceClass = "standard",
    endpoint: str = "",
) -> Price | None:
    """Return the price in force at a time; None is the time of the transaction. Returns None if nothing is charged.

    A class without a price of its own has that of the standard class.
    """
    parameters = {
        "model": model,
        "currency": currency,
        "at": at,
        "service_class": service_class,
        "endpoint": endpoint,
    }
    row = fetch_one(connection, PRICE_AT, parameters)
    return Price(**row) if row else None


# The newest of each endpoint that is in force. A price of the class for any endpoint comes before the standard ones.
# A turn of a local model may be moved to an endpoint's, whose own price is charged unless the endpoint has one for the
# turn's model.
IN_FORCE = f"""
SELECT DISTINCT ON (endpoint, model) {COLUMNS} FROM prices
WHERE currency = %(currency)s AND valid_from <= now()
  AND (model = %(model)s OR (model, endpoint) IN (
       SELECT model_name, model_endpoint FROM served_models WHERE description @> '{{"takes_spilled": true}}'))
  AND (service_class = %(service_class)s OR service_class = 'standard' AND NOT EXISTS (
       SELECT FROM prices AS general
       WHERE general.model = %(model)s AND general.currency = %(currency)s AND general.valid_from <= now()
         AND general.service_class = %(service_class)s AND general.endpoint = ''))
ORDER BY endpoint, model, service_class <> %(service_class)s, valid_from DESC
"""


def prices_in_force(
    connection: Connection, model: str, currency: str, *, service_class: ServiceClass = "standard"
) -> list[Price]:
    """Return the prices that a request may have now, whichever endpoint serves it."""
    parameters = {"model": model, "currency": currency, "service_class": service_class}
    return [Price(**row) for row in fetch_all(connection, IN_FORCE, parameters)]


def highest_cost(prices: Iterable[Price], input_tokens: int, output_tokens: int, context: int | None = None) -> Decimal:
    """Return the most that at most these tokens cost at any of the prices; zero without prices."""
    return max((price.highest_cost(input_tokens, output_tokens, context) for price in prices), default=ZERO)


NEXT_CHANGE = """
SELECT min(valid_from) AS valid_from FROM prices
WHERE model = %(model)s AND currency = %(currency)s AND valid_from > now()
"""


def next_change(connection: Connection, model: str, currency: str) -> datetime | None:
    """Return when the next announced price of a model begins; None if none is announced."""
    row = fetch_one(connection, NEXT_CHANGE, {"model": model, "currency": currency})
    changes_at: datetime | None = row["valid_from"] if row else None
    return changes_at


# The last page is the newest: ids sort by time of creation.
LIST = f"""
SELECT {COLUMNS} FROM prices
WHERE (%(after)s::text IS NULL OR id < %(after)s) AND (%(model)s::text IS NULL OR model = %(model)s)
  AND (%(currency)s::text IS NULL OR currency = %(currency)s)
ORDER BY id DESC LIMIT %(limit)s
"""


def list_prices(
    connection: Connection,
    *,
    model: str | None = None,
    currency: str | None = None,
    after: str | None = None,
    limit: int = 20,
) -> list[Price]:
    """Return at most `limit` prices of all times, newest first, older than the price `after`."""
    parameters = {"model": model, "currency": currency, "after": after, "limit": limit}
    return [Price(**row) for row in fetch_all(connection, LIST, parameters)]


# Those in force and those announced: all but the ones that a later row in force has replaced.
CURRENT = f"""
SELECT {COLUMNS} FROM prices
WHERE currency = %(currency)s AND (%(after)s::text IS NULL OR id < %(after)s) AND NOT EXISTS (
    SELECT FROM prices AS later
    WHERE later.model = prices.model AND later.endpoint = prices.endpoint
      AND later.service_class = prices.service_class AND later.currency = prices.currency
      AND later.valid_from > prices.valid_from AND later.valid_from <= now())
ORDER BY id DESC LIMIT %(limit)s
"""


def list_current(connection: Connection, currency: str, *, after: str | None = None, limit: int = 20) -> list[Price]:
    """Return the prices in force and those announced, newest first, older than the price `after`."""
    parameters = {"currency": currency, "after": after, "limit": limit}
    return [Price(**row) for row in fetch_all(connection, CURRENT, parameters)]


@dataclass(frozen=True, slots=True)
class NewPrice:
    """A price to add. Without `cached_input` cached tokens cost what others do; without a time it begins at once, or
    after the notice if it replaces one."""

    model: str
    currency: str
    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    endpoint: str = ""
    service_class: ServiceClass = "standard"
    valid_from: datetime | None = None


# Transactions that add prices run one after the other, so that each sees the prices of those before.
LOCK = "LOCK TABLE prices IN SHARE ROW EXCLUSIVE MODE"

EARLIEST = """
SELECT CASE WHEN EXISTS (SELECT FROM prices
                         WHERE model = %(model)s AND currency = %(currency)s AND valid_from <= now())
            THEN clock_timestamp() + make_interval(secs => %(notice)s) ELSE clock_timestamp() END AS earliest,
       clock_timestamp() AS now
"""

INSERT = f"""
INSERT INTO prices (id, model, endpoint, service_class, currency, input, cached_input, output, valid_from)
VALUES (%(id)s, %(model)s, %(endpoint)s, %(service_class)s, %(currency)s, %(input)s, %(cached_input)s, %(output)s,
        %(valid_from)s)
ON CONFLICT (model, service_class, currency, endpoint, valid_from) DO NOTHING
RETURNING {COLUMNS}
"""


def add_price(connection: Connection, new: NewPrice) -> Price:
    """Add a price in the caller's transaction, which should commit within the notice.

    Raises InvalidRequest for a time in the past, or within the notice if it replaces a price in force, and Conflict
    if one begins at that time already.
    """
    currency = check_currency(new.currency)
    cached_input = new.input if new.cached_input is None else new.cached_input
    for name, amount in (("input", new.input), ("cached_input", cached_input), ("output", new.output)):
        _check_amount(amount, name)
    connection.execute(LOCK)
    parameters = {
        "id": new_id("price"),
        "model": new.model,
        "endpoint": new.endpoint,
        "service_class": new.service_class,
        "currency": currency,
        "input": new.input,
        "cached_input": cached_input,
        "output": new.output,
        "valid_from": _begin(connection, new, currency),
    }
    row = fetch_one(connection, INSERT, parameters)
    if row is None:
        message = "A price for the same model, endpoint, class and currency begins at this time."
        raise Conflict(message, param="valid_from")
    return Price(**row)


def _check_amount(amount: Decimal, param: str) -> None:
    if not amount.is_finite() or not ZERO <= amount <= MAX_PRICE:
        raise InvalidRequest(f"'{param}' should be from 0 to {MAX_PRICE} per million tokens.", param=param)
    if amount != round(amount, MAX_DIGITS):
        raise InvalidRequest(f"'{param}' should have at most {MAX_DIGITS} decimal digits.", param=param)


def _begin(connection: Connection, new: NewPrice, currency: str) -> datetime:
    parameters = {"model": new.model, "currency": currency, "notice": NOTICE_SECONDS}
    row = fetch_one(connection, EARLIEST, parameters)
    assert row is not None
    if new.valid_from is None:
        earliest: datetime = row["earliest"]
        return earliest
    if new.valid_from < row["now"]:
        raise InvalidRequest("A price cannot begin in the past.", param="valid_from")
    if new.valid_from < row["earliest"]:
        message = f"The price replaces one in force: it begins {NOTICE_SECONDS} seconds from now, or later."
        raise InvalidRequest(message, param="valid_from")
    return new.valid_from

"""Compare payments with the gateways' own books.

The books are read page by page, a day at a time, so memory depends on the payments of a day. Both sides change
meanwhile: what differs is read again from both before it is reported.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice

from models.platform.database import Database, fetch_all
from pipelines.billing.audit.check import Difference
from pipelines.billing.gateways.gateway import BookedPayment, Gateway

NAME = "gateway_books"

PROVES = "the payments, refunds and disputes in the gateways' own books are those here"

#: Payments of a statement.
BATCH = 100

#: How long after a payment has arrived its event may be under way.
GRACE = timedelta(minutes=10)

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class OwnPayment:
    """A payment as we have it. `refunding`: a refund of it is under way, which the gateway may count or not."""

    id: str
    account_id: str
    gateway_payment_id: str | None
    currency: str
    amount: Decimal
    refunded: Decimal
    disputed: Decimal
    arrived: bool
    refunding: bool


_OWN = """
SELECT id, account_id, gateway_payment_id, currency, amount, refunded, disputed_amount + lost_amount AS disputed,
       state IN ('succeeded', 'refunded', 'disputed') AS arrived,
       EXISTS (SELECT FROM refunds WHERE payment_id = payments.id AND refunds.state = 'pending') AS refunding
FROM payments
"""

BY_ID = f"{_OWN} WHERE gateway = %(gateway)s AND id = ANY(%(ids)s)"

ARRIVED = f"""{_OWN}
WHERE gateway = %(gateway)s AND state IN ('succeeded', 'refunded', 'disputed') AND created_at >= %(start)s
  AND created_at < %(end)s AND id > %(after)s
ORDER BY id LIMIT %(limit)s
"""

ACCOUNTS = "SELECT id FROM accounts WHERE id = ANY(%(ids)s)"


def differences(database: Database, gateway: Gateway, start: datetime, end: datetime) -> Iterator[Difference]:
    """Yield where the books of a time differ from our payments. Raises GatewayFailed."""
    while start < end:
        day_end = min(start + DAY, end)
        listed: set[str] = set()
        yield from _listed_differences(database, gateway, start, day_end, listed)
        yield from _missing(database, gateway, start, day_end, listed)
        start = day_end


def _listed_differences(
    database: Database, gateway: Gateway, start: datetime, end: datetime, listed: set[str]
) -> Iterator[Difference]:
    """Compare what the gateway lists, and add the ids of our payments to `listed`."""
    books = gateway.list_payments(start, end)
    while page := list(islice(books, BATCH)):
        listed.update(each.gateway_payment_id for each in page)
        for booked in _differing(database, gateway, page):
            again = gateway.read_payment(booked.gateway_payment_id)
            if again is not None and _differing(database, gateway, [again]):
                yield _difference(database, gateway, again)


def _differing(database: Database, gateway: Gateway, page: Sequence[BookedPayment]) -> list[BookedPayment]:
    """Return the payments of a page that differ from ours. Those of other installations are left out."""
    ours = _own(database, gateway, page)
    differing = [each for each in page if each.payment_id and not _agree(each, ours.get(each.payment_id))]
    known = _known_accounts(database, differing)
    return [each for each in differing if each.account_id in known and datetime.now(UTC) - each.at > GRACE]


def _own(database: Database, gateway: Gateway, page: Sequence[BookedPayment]) -> dict[str, OwnPayment]:
    ids = [each.payment_id for each in page if each.payment_id]
    with database.connection() as connection:
        rows = fetch_all(connection, BY_ID, {"gateway": gateway.name, "ids": ids})
    return {row["id"]: OwnPayment(**row) for row in rows}


def _known_accounts(database: Database, page: Sequence[BookedPayment]) -> set[str]:
    if not page:
        return set()
    with database.connection() as connection:
        rows = fetch_all(connection, ACCOUNTS, {"ids": [each.account_id for each in page]})
    return {row["id"] for row in rows}


def _agree(booked: BookedPayment, own: OwnPayment | None) -> bool:
    return (
        own is not None
        and own.arrived
        and own.gateway_payment_id == booked.gateway_payment_id
        and (own.amount, own.currency, own.disputed) == (booked.amount, booked.currency, booked.disputed)
        and (own.refunding or own.refunded == booked.refunded)
    )


def _difference(database: Database, gateway: Gateway, booked: BookedPayment) -> Difference:
    own = _own(database, gateway, [booked]).get(booked.payment_id or "")
    expected = _text(booked.gateway_payment_id, booked.amount, booked.currency, booked.refunded, booked.disputed)
    found = "no such payment"
    if own is not None:
        found = _text(own.gateway_payment_id, own.amount, own.currency, own.refunded, own.disputed)
        found += "" if own.arrived else ", which has not arrived"
    return Difference(NAME, booked.payment_id or booked.gateway_payment_id, booked.account_id, expected, found)


def _text(gateway_id: str | None, amount: Decimal, currency: str, refunded: Decimal, disputed: Decimal) -> str:
    return f"{gateway_id} of {amount:f} {currency}, refunded {refunded:f}, disputed {disputed:f}"


def _missing(
    database: Database, gateway: Gateway, start: datetime, end: datetime, listed: set[str]
) -> Iterator[Difference]:
    """Yield our payments that the gateway does not have. One that was made on a later day is read by itself."""
    for own in _arrived(database, gateway, start, end):
        if own.gateway_payment_id in listed:
            continue
        if own.gateway_payment_id is None or gateway.read_payment(own.gateway_payment_id) is None:
            found = _text(own.gateway_payment_id, own.amount, own.currency, own.refunded, own.disputed)
            yield Difference(NAME, own.id, own.account_id, "nothing", found)


def _arrived(database: Database, gateway: Gateway, start: datetime, end: datetime) -> Iterator[OwnPayment]:
    parameters = {"gateway": gateway.name, "start": start, "end": end, "after": "", "limit": BATCH}
    while True:
        with database.connection() as connection:
            rows = fetch_all(connection, ARRIVED, parameters)
        yield from (OwnPayment(**row) for row in rows)
        if len(rows) < BATCH:
            return
        parameters["after"] = rows[-1]["id"]

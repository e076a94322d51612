"""Disputes: what customers' banks have taken back of payments.

    succeeded ─► disputed ─┬─► succeeded     won: the bank has given it back
                           └─► disputed      lost: it is a bad debt

A payment may have several disputes, also one after another, each of a part of it. Their present sums are stored, and
the ledger is moved to them.
"""

from decimal import Decimal

from models.billing import postings
from models.billing.currencies import ZERO
from models.billing.payments import COLUMNS, Payment, PaymentOutcome
from models.billing.postings import Leg, leg
from models.platform.database import Connection, fetch_one

# A dispute may be won and then lost: what the gateway said later counts.
STORE = f"""
UPDATE payments
SET disputed_amount = %(disputed)s, lost_amount = %(lost)s, gateway_time = %(at)s,
    state = CASE WHEN %(disputed)s + %(lost)s > 0 THEN 'disputed'
                 WHEN refunded = amount AND NOT EXISTS (
                     SELECT FROM refunds WHERE refunds.payment_id = payments.id AND refunds.state = 'pending')
                     THEN 'refunded'
                 ELSE 'succeeded' END
WHERE id = %(id)s AND account_id = %(account_id)s AND state IN ('succeeded', 'refunded', 'disputed')
  AND (gateway_time IS NULL OR gateway_time <= %(at)s)
RETURNING {COLUMNS}
"""


def apply(connection: Connection, payment: Payment, outcome: PaymentOutcome) -> None:
    """Apply what the gateway says about the disputes of a payment that has arrived. The caller has locked it.

    An answer that is older than what was applied changes nothing.
    """
    parameters = {
        "id": payment.id,
        "account_id": payment.account_id,
        "disputed": outcome.disputed,
        "lost": outcome.lost,
        "at": outcome.at,
    }
    row = fetch_one(connection, STORE, parameters)
    if row is not None:
        _post(connection, Payment(**row))


def _post(connection: Connection, payment: Payment) -> None:
    """Post what the ledger lacks of the payment's disputes, as further legs of one reference."""
    posted = postings.posted_legs(connection, "dispute", payment.id)
    won_before = postings.posted_legs(connection, "dispute", f"{payment.id}:won")  # as earlier versions posted it
    taken, lost = _balances([*posted, *won_before])
    legs = [
        *leg("disputes", "gateway", payment.disputed_amount + payment.lost_amount - taken),
        *leg("bad_debt", "disputes", payment.lost_amount - lost),
    ]
    postings.post(
        connection, payment.account_id, "dispute", payment.id, legs, currency=payment.currency, after=len(posted)
    )


def _balances(legs: list[Leg]) -> tuple[Decimal, Decimal]:
    """Return what the legs have taken from the gateway, and what of it is lost."""
    taken = sum((_signed(each, "gateway") for each in legs), ZERO)
    return taken, -sum((_signed(each, "bad_debt") for each in legs), ZERO)


def _signed(entry: Leg, account: str) -> Decimal:
    """Return what a leg credits to a ledger account; negative if it debits it."""
    return entry.amount if entry.credit == account else -entry.amount if entry.debit == account else ZERO

"""Refunds: parts of payments that are given back, each by a job `payment.refund`.

    pending ─┬─► succeeded
             └─► failed      the amount can be refunded again

The amount is taken from what the payment has left when the refund is requested, so that concurrent requests together
never give back more than was paid.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.billing import billing_details, credits, payments, postings
from models.billing.currencies import check_amount, format_amount
from models.billing.payments import Payment
from models.billing.postings import leg
from models.jobs import effects
from models.jobs.jobs import NewJob
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import Conflict
from models.platform.ids import new_id
from models.platform.records import columns

#: The effect of a refund's job.
REFUND = "refund"

#: How long a refund that its gateway has not decided waits for an event before the gateway is asked.
CHECK_AFTER = timedelta(minutes=10)

RefundState = Literal["pending", "succeeded", "failed"]


@dataclass(frozen=True, slots=True)
class Refund:
    """A row of `refunds`."""

    id: str
    account_id: str
    payment_id: str
    credit_note_id: str | None
    refund_job_id: str | None
    gateway_refund_id: str | None
    currency: str
    amount: Decimal
    state: RefundState
    reason: str
    error: Mapping[str, Any] | None
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class RefundOutcome:
    """The state of a refund at its gateway."""

    state: RefundState
    gateway_refund_id: str | None
    error: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON, for `effects`."""
        return asdict(self)


COLUMNS = columns(Refund)

RESERVE = """
UPDATE payments SET refunded = refunded + %(amount)s
WHERE id = %(payment_id)s AND account_id = %(account_id)s AND state = 'succeeded' AND refunded + %(amount)s <= amount
RETURNING id
"""

INSERT = f"""
INSERT INTO refunds (id, account_id, payment_id, credit_note_id, refund_job_id, currency, amount, state, reason)
VALUES (%(id)s, %(account_id)s, %(payment_id)s, %(credit_note_id)s, %(job_id)s, %(currency)s, %(amount)s, 'pending',
        %(reason)s)
RETURNING {COLUMNS}
"""


def new_refund(
    connection: Connection,
    payment: Payment,
    *,
    amount: Decimal | None = None,
    reason: str = "",
    credit_note_id: str | None = None,
) -> tuple[Refund, NewJob]:
    """Insert a pending refund, and return it with the job that makes it, which the caller inserts.

    amount  None: what the payment has left

    Raises InvalidRequest for an amount that is not one of the currency, and Conflict if the payment has no such amount
    left.
    """
    current = payments.lock(connection, payment.id, payment.account_id)
    wanted = check_amount(amount, current.currency) if amount is not None else current.amount - current.refunded
    check_refundable(current, wanted)
    refund_id = new_id("ref")
    job = NewJob(
        "payment.refund", current.account_id, {"refund_id": refund_id}, unique_key=f"payment.refund {refund_id}"
    )
    parameters = {
        "id": refund_id,
        "account_id": current.account_id,
        "payment_id": current.id,
        "credit_note_id": credit_note_id,
        "job_id": job.id,
        "currency": current.currency,
        "amount": wanted,
        "reason": reason,
    }
    reserved = fetch_one(connection, RESERVE, parameters)
    assert reserved is not None, "it is locked and was checked"
    row = fetch_one(connection, INSERT, parameters)
    assert row is not None
    return Refund(**row), job


def check_refundable(payment: Payment, amount: Decimal) -> None:
    """Raise Conflict unless a locked payment has the amount left."""
    if payment.state != "succeeded":
        raise Conflict(f"The payment is {payment.state}, so it cannot be refunded.", code="payment_not_refundable")
    left = payment.amount - payment.refunded
    if not 0 < amount <= left:
        text = format_amount(left, payment.currency)
        raise Conflict(f"Only {text} {payment.currency} of the payment can be refunded.", code="refund_too_large")


FOREIGN = f"""
INSERT INTO refunds (id, account_id, payment_id, gateway_refund_id, currency, amount, state, reason)
VALUES (%(id)s, %(account_id)s, %(payment_id)s, %(gateway_refund_id)s, %(currency)s, %(amount)s, 'pending',
        'Made at the payment gateway')
ON CONFLICT (payment_id, gateway_refund_id) DO NOTHING
RETURNING {COLUMNS}
"""

READ_FOREIGN = f"""
SELECT {COLUMNS} FROM refunds
WHERE payment_id = %(payment_id)s AND account_id = %(account_id)s AND gateway_refund_id = %(gateway_refund_id)s
"""


def add_foreign(connection: Connection, payment: Payment, amount: Decimal, outcome: RefundOutcome) -> Refund | None:
    """Return the refund that was made at the gateway itself, inserted if it is new.

    Returns None for one that has failed before we knew of it, and for more than the payment has left.
    """
    payments.lock_for_refund(connection, payment.id, payment.account_id)
    parameters = {
        "id": new_id("ref"),
        "account_id": payment.account_id,
        "payment_id": payment.id,
        "gateway_refund_id": outcome.gateway_refund_id,
        "currency": payment.currency,
        "amount": amount,
    }
    if row := fetch_one(connection, READ_FOREIGN, parameters):
        return Refund(**row)
    if outcome.state == "failed" or fetch_one(connection, RESERVE, parameters) is None:
        return None
    inserted = fetch_one(connection, FOREIGN, parameters)
    return Refund(**inserted) if inserted else None


READ = f"SELECT {COLUMNS} FROM refunds WHERE id = %(id)s AND account_id = %(account_id)s"


def read(connection: Connection, refund_id: str, account_id: str) -> Refund | None:
    """Return a refund of the account."""
    row = fetch_one(connection, READ, {"id": refund_id, "account_id": account_id})
    return Refund(**row) if row else None


LIST = f"""
SELECT {COLUMNS} FROM refunds WHERE payment_id = %(payment_id)s AND account_id = %(account_id)s ORDER BY id
"""


def list_of_payment(connection: Connection, payment_id: str, account_id: str) -> list[Refund]:
    """Return the refunds of a payment, the oldest first."""
    rows = fetch_all(connection, LIST, {"payment_id": payment_id, "account_id": account_id})
    return [Refund(**row) for row in rows]


END = f"""
UPDATE refunds SET state = %(state)s, gateway_refund_id = coalesce(%(gateway_refund_id)s, gateway_refund_id),
                   error = %(error)s, ended_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s AND state = ANY(%(from_states)s)
RETURNING {COLUMNS}
"""

RELEASE = """
UPDATE payments
SET refunded = refunded - %(amount)s, state = CASE WHEN state = 'refunded' THEN 'succeeded' ELSE state END
WHERE id = %(payment_id)s AND account_id = %(account_id)s
"""

# All of it has been given back, and nothing of that is under way.
MARK_REFUNDED = """
UPDATE payments SET state = 'refunded'
WHERE id = %(payment_id)s AND account_id = %(account_id)s AND state = 'succeeded' AND refunded = amount
  AND NOT EXISTS (SELECT FROM refunds WHERE refunds.payment_id = payments.id AND refunds.state = 'pending')
"""


STORE_PENDING = """
UPDATE refunds SET gateway_refund_id = coalesce(%(gateway_refund_id)s, gateway_refund_id)
WHERE id = %(id)s AND account_id = %(account_id)s AND state = 'pending'
RETURNING id
"""


def settle(connection: Connection, refund: Refund, outcome: RefundOutcome) -> list[NewJob]:
    """Apply the state of a refund at its gateway, once. One that failed later gives the amount back to its payment.

    Returns the job that asks the gateway again, if it has not decided.
    """
    payments.lock(connection, refund.payment_id, refund.account_id)
    parameters = {
        "id": refund.id,
        "account_id": refund.account_id,
        "payment_id": refund.payment_id,
        "amount": refund.amount,
        "state": outcome.state,
        "gateway_refund_id": outcome.gateway_refund_id,
        "error": Jsonb(dict(outcome.error)) if outcome.error else None,
        "from_states": ["pending"] if outcome.state == "succeeded" else ["pending", "succeeded"],
    }
    if outcome.state == "pending":
        return [_check_later(refund)] if fetch_one(connection, STORE_PENDING, parameters) else []
    before = read(connection, refund.id, refund.account_id)
    if fetch_one(connection, END, parameters) is None or before is None:
        return []
    if refund.refund_job_id is not None:  # an event may be first: nobody has to look the call up any more
        effects.record_if_declared(connection, refund.refund_job_id, REFUND, outcome.to_json())
    if outcome.state == "succeeded":
        _post(connection, refund, refund.id, refund.amount)
        connection.execute(MARK_REFUNDED, parameters)
        return []
    connection.execute(RELEASE, parameters)
    if refund.credit_note_id is not None:
        _grant(connection, refund)
    if before.state == "succeeded":  # the customer's bank has returned it
        _post(connection, refund, f"{refund.id}:failed", -refund.amount)
    return []


def _check_later(refund: Refund) -> NewJob:
    run_at, unique_key = datetime.now(UTC) + CHECK_AFTER, f"refund.check {refund.id}"
    return NewJob("refund.check", refund.account_id, {"refund_id": refund.id}, run_at=run_at, unique_key=unique_key)


def _grant(connection: Connection, refund: Refund) -> None:
    """Make a credit of what a credit note has returned and the gateway could not."""
    billing_details.lock_if_any(connection, refund.account_id)
    reason = f"Refund {refund.id} failed"
    grant = credits.insert(connection, refund, refund.amount, reason=reason, priority=credits.BOUGHT_PRIORITY)
    legs = leg("receivable", "credits", refund.amount)
    postings.post(connection, refund.account_id, "grant", grant.id, legs, currency=refund.currency)


def _post(connection: Connection, refund: Refund, reference: str, amount: Decimal) -> None:
    legs = leg("receivable", "gateway", amount)
    postings.post(connection, refund.account_id, "refund", reference, legs, currency=refund.currency)

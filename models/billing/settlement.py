"""Apply what a gateway says about a payment: its state, its postings, its invoice and its subscription.

All in the caller's transaction. A statement that comes twice, late or out of order changes nothing.
"""

from models.billing import dunning, invoices, payments, postings
from models.billing.payments import UNPAID, Payment, PaymentOutcome
from models.billing.postings import leg, posted_legs, reversed_legs
from models.jobs.jobs import NewJob
from models.platform.database import Connection


def settle(connection: Connection, payment: Payment, outcome: PaymentOutcome) -> list[NewJob]:
    """Apply the state of a payment at its gateway. Returns the jobs that follow from it."""
    current = payments.lock(connection, payment.id, payment.account_id)
    following = _advance(connection, current, outcome) if current.state in UNPAID else []
    if outcome.state == "succeeded":
        _apply_dispute(connection, payments.read(connection, payment.id, payment.account_id), outcome)
    return following


def _advance(connection: Connection, current: Payment, outcome: PaymentOutcome) -> list[NewJob]:
    advanced = payments.advance(connection, current, outcome)
    if advanced is None:
        return []
    if advanced.state == "succeeded":
        return _on_success(connection, advanced)
    return _on_failure(connection, advanced) if advanced.state == "failed" else []


def _on_success(connection: Connection, payment: Payment) -> list[NewJob]:
    legs = leg("gateway", "receivable", payment.amount)
    postings.post(connection, payment.account_id, "payment", payment.id, legs, currency=payment.currency)
    fee = leg("fees", "gateway", payment.fee)
    postings.post(connection, payment.account_id, "fee", payment.id, fee, currency=payment.currency)
    if payment.invoice_id is None:
        return []
    return dunning.invoice_paid(connection, invoices.apply_payment(connection, payment.invoice_id, payment.amount))


def _on_failure(connection: Connection, payment: Payment) -> list[NewJob]:
    if payment.invoice_id is None:
        return []
    return dunning.payment_failed(connection, invoices.read(connection, payment.invoice_id, payment.account_id))


def _apply_dispute(connection: Connection, payment: Payment, outcome: PaymentOutcome) -> None:
    """Post what the customer's bank has taken back, or given back after it decided for us."""
    changed = payments.set_disputed(connection, payment, disputed=outcome.disputed > 0, at=outcome.at)
    if changed is None:
        return
    if changed.state == "disputed":
        legs, reference = leg("disputes", "gateway", outcome.disputed), payment.id
    else:
        legs, reference = reversed_legs(posted_legs(connection, "dispute", payment.id)), f"{payment.id}:won"
    postings.post(connection, payment.account_id, "dispute", reference, legs, currency=payment.currency)

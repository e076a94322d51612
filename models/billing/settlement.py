"""Apply what a gateway says about a payment: its state, its postings, its invoice and its subscription.

All in the caller's transaction. A statement that comes twice, late or out of order changes nothing.
"""

from datetime import UTC, datetime, timedelta

from models.billing import disputes, dunning, invoices, payments, postings
from models.billing.currencies import format_amount
from models.billing.payments import UNPAID, Payment, PaymentOutcome
from models.billing.postings import leg
from models.delivery import events
from models.delivery.event_types import EventType
from models.jobs import effects
from models.jobs.jobs import NewJob
from models.platform.database import Connection

#: The effect of a payment's job.
CHARGE = "charge"

#: How long a payment waits for its gateway's event before the gateway is asked.
CHECK_AFTER = timedelta(hours=1)


def settle(connection: Connection, payment: Payment, outcome: PaymentOutcome) -> list[NewJob]:
    """Apply the state of a payment at its gateway. Returns the jobs that follow from it."""
    current = payments.lock(connection, payment.id, payment.account_id)
    following = _advance(connection, current, outcome) if current.state in UNPAID else []
    if outcome.state == "succeeded":
        disputes.apply(connection, current, outcome)
    elif outcome.state != "failed" and current.state in ("pending", "requires_action"):
        following += _check_later(connection, current)
    return following


def _check_later(connection: Connection, payment: Payment) -> list[NewJob]:
    """Return the job that asks the gateway again, in case that its event does not arrive.

    Of a bank transfer it is the one that looks whether the invoice was paid when it is due.
    """
    if payment.gateway == "manual":
        return _check_when_due(connection, payment)
    arguments = {"payment_id": payment.id}
    run_at = datetime.now(UTC) + CHECK_AFTER
    unique_key = f"payment.check {payment.id}"
    return [NewJob("payment.check", payment.account_id, arguments, run_at=run_at, unique_key=unique_key)]


def _check_when_due(connection: Connection, payment: Payment) -> list[NewJob]:
    if payment.invoice_id is None:
        return []
    return dunning.check_when_due(invoices.read(connection, payment.invoice_id, payment.account_id))


def _advance(connection: Connection, current: Payment, outcome: PaymentOutcome) -> list[NewJob]:
    advanced = payments.advance(connection, current, outcome)
    if advanced is None:
        return []
    if advanced.state == "requires_action":
        return []
    if advanced.job_id is not None:  # an event may be first: nobody has to look the call up any more
        effects.record_if_declared(connection, advanced.job_id, CHARGE, outcome.to_json())
    _record(connection, advanced)
    return _on_success(connection, advanced) if advanced.state == "succeeded" else _on_failure(connection, advanced)


def _record(connection: Connection, payment: Payment) -> None:
    data = {
        "id": payment.id,
        "invoice_id": payment.invoice_id,
        "amount": format_amount(payment.amount, payment.currency),
        "currency": payment.currency,
    }
    type: EventType = "payment.succeeded" if payment.state == "succeeded" else "payment.failed"
    events.record(connection, payment.account_id, type, data)


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

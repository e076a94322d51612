"""Operators' actions on payments. Each is recorded in the audit log of the account that it concerns."""

from datetime import UTC, datetime
from decimal import Decimal

from models.accounts import audit
from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.billing import payments, refunds, settlement
from models.billing.currencies import check_amount
from models.billing.payments import Payment, PaymentOutcome
from models.billing.refunds import Refund
from models.jobs.jobs import enqueue
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, NotFound
from pipelines.billing import credit_note
from pipelines.billing.credit_note import NewCreditNote


def find_payment(connection: Connection, payment_id: str) -> Payment:
    """Return a payment of any account. Raises NotFound."""
    payment = payments.read_any(connection, payment_id)
    if payment is None:
        raise NotFound(f"Payment with id '{payment_id}' not found.", param="payment_id")
    return payment


def refund(
    database: Database,
    caller: Caller,
    payment_id: str,
    origin: RequestOrigin,
    *,
    amount: Decimal | None,
    reason: str,
) -> Refund:
    """Refund a payment, or a part of it, with a credit note of its invoice. Announce the account's jobs afterwards.

    amount  None: what the payment has left

    Raises NotFound, InvalidRequest, and Conflict if the payment does not have the amount left.
    """
    with database.transaction() as connection:
        payment = find_payment(connection, payment_id)
        current = payments.lock_for_refund(connection, payment.id, payment.account_id)
        wanted = check_amount(amount, current.currency) if amount is not None else current.amount - current.refunded
        refunds.check_refundable(current, wanted)
        made = _refund_invoice(connection, current, wanted, reason)
        details = {"refund": made.id, "amount": str(made.amount), "currency": made.currency, "reason": reason}
        audit.record(
            connection,
            "payment.refunded",
            origin,
            account_id=payment.account_id,
            user_id=caller.user_id,
            target=payment.id,
            details=details,
        )
    return made


def _refund_invoice(connection: Connection, payment: Payment, amount: Decimal, reason: str) -> Refund:
    """Request the refund, with a credit note if the payment is of an invoice."""
    if payment.invoice_id is None:
        return _request(connection, payment, amount, reason, None)
    made: list[Refund] = []

    def request_refund(payment_id: str, part: Decimal, credit_note_id: str) -> None:
        if payment_id != payment.id or part != amount:
            message = "The invoice was paid by several payments or with credits. Issue a credit note of it instead."
            raise Conflict(message, code="several_payments")
        made.append(_request(connection, payment, part, reason, credit_note_id))

    note = NewCreditNote(reason=reason or "Refund", amount=amount)
    credit_note.issue(connection, payment.invoice_id, payment.account_id, note, request_refund)
    if not made:
        raise Conflict("The invoice is not paid, so nothing of it can be refunded.", code="payment_not_refundable")
    return made[0]


def _request(
    connection: Connection, payment: Payment, amount: Decimal, reason: str, credit_note_id: str | None
) -> Refund:
    made, job = refunds.new_refund(connection, payment, amount=amount, reason=reason, credit_note_id=credit_note_id)
    enqueue(connection, job)
    return made


def mark_paid(database: Database, caller: Caller, payment_id: str, origin: RequestOrigin, *, reference: str) -> Payment:
    """Settle a payment that was made by bank transfer. Raises NotFound, and Conflict for one of another gateway.

    A payment that is marked twice is settled once. Announce the account's jobs afterwards.
    """
    with database.transaction() as connection:
        payment = find_payment(connection, payment_id)
        if payment.gateway != "manual":
            message = f"The payment is made by the gateway '{payment.gateway}', which says whether it is paid."
            raise Conflict(message, code="not_manual")
        if payments.lock(connection, payment.id, payment.account_id).state == "pending":
            outcome = PaymentOutcome("succeeded", None, datetime.now(UTC))
            for job in settlement.settle(connection, payment, outcome):
                enqueue(connection, job)
            details = {"amount": str(payment.amount), "currency": payment.currency, "reference": reference}
            audit.record(
                connection, "payment.marked_paid", origin, account_id=payment.account_id, user_id=caller.user_id,
                target=payment.id, details=details,
            )  # fmt: skip
        return payments.read(connection, payment.id, payment.account_id)

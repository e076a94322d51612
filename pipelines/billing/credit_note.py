"""Issue credit notes, and return what was paid for what they take back."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal

from models.billing import billing_details, credit_notes, credits, invoices, numbering, postings
from models.billing.credit_notes import CreditNote
from models.billing.currencies import ZERO, check_amount, format_amount, minor_unit
from models.billing.invoices import Invoice
from models.billing.payments import Payment
from models.billing.postings import Leg, leg
from models.billing.refunds import Refund as GatewayRefund
from models.platform.database import Connection
from models.platform.errors import Conflict, InvalidRequest, RequestError
from models.platform.ids import new_id
from pipelines.billing.invoice_email import enqueue_credit_note
from pipelines.billing.tax import tax_on, tax_share

log = logging.getLogger(__name__)

#: Requests the refund of a part of a payment: `refund(payment_id, amount, credit_note_id)`.
Refund = Callable[[str, Decimal, str], None]


@dataclass(frozen=True, slots=True)
class NewCreditNote:
    """What to credit: an amount with tax, what one job was billed, or without either all that is left.

    id        of the new credit note; None: generated
    refunded  the amount has been refunded already, so nothing is returned for it
    """

    reason: str
    amount: Decimal | None = None
    job_id: str | None = None
    id: str | None = None
    refunded: bool = False


def issue(connection: Connection, invoice_id: str, account_id: str, new: NewCreditNote, refund: Refund) -> CreditNote:
    """Issue a credit note of an invoice, once for an id. What was paid is refunded; what was drawn is a credit again.

    Raises InvalidRequest for more than the invoice has left, Conflict for an invoice that is not finalised or void, and
    NotFound.
    """
    refundable = credit_notes.lock_refundable(connection, invoice_id, account_id)
    details = billing_details.lock_if_any(connection, account_id)
    invoice = invoices.lock(connection, invoice_id, account_id)
    if earlier := credit_notes.read_if_any(connection, new.id, account_id):
        return earlier
    amount = _amount(connection, invoice, new)
    tax = _tax(connection, invoice, amount)
    excess = amount if new.refunded else max(ZERO, amount - max(invoice.balance, ZERO))
    note_id = new.id or new_id("cn")
    legs = _legs(connection, invoice, amount, tax)
    postings.post(connection, account_id, "credit_note", note_id, legs, currency=invoice.currency)
    credit_notes.add_to_invoice(connection, invoice, amount, excess)
    number = numbering.next_credit_note_number(connection)
    note = credit_notes.insert(
        connection, invoice, note_id=note_id, number=number, amount=amount, tax=tax, reason=new.reason,
        job_id=new.job_id,
    )  # fmt: skip
    if not new.refunded:
        _return(connection, note, excess, refundable, refund)
    if details is not None:  # an erased account has no address
        enqueue_credit_note(connection, details, note)
    return note


def _amount(connection: Connection, invoice: Invoice, new: NewCreditNote) -> Decimal:
    """Return the amount with tax. Raises InvalidRequest and Conflict."""
    if invoice.state not in ("open", "paid"):
        raise Conflict(f"The invoice is {invoice.state}. Only an open or paid one is credited.", code="invoice_state")
    left = invoice.total - invoice.credited
    if left <= 0:
        raise Conflict("Nothing of the invoice is left to credit.", code="invoice_state")
    if new.job_id is not None:
        return min(_of_job(connection, invoice, new.job_id), left)
    if new.amount is None:
        return left
    amount = check_amount(new.amount, invoice.currency)
    if amount > left:
        text = format_amount(left, invoice.currency)
        raise InvalidRequest(f"'amount' is more than the {text} that is left of the invoice.", param="amount")
    return amount


def _of_job(connection: Connection, invoice: Invoice, job_id: str) -> Decimal:
    """Return what a job was billed, with tax, rounded up to the minor unit: a line has many jobs' fractions of one."""
    exact = credit_notes.billed_amount(connection, invoice, job_id)
    net = exact.quantize(minor_unit(invoice.currency), ROUND_CEILING)
    if net <= 0:
        raise InvalidRequest(f"Job '{job_id}' was free.", param="job_id")
    rate = Decimal((invoice.parties or {})["tax"]["rate"])
    return net + tax_on(net, rate, invoice.currency)


def _tax(connection: Connection, invoice: Invoice, amount: Decimal) -> Decimal:
    already = credit_notes.credited_tax(connection, invoice)
    return tax_share(invoice.tax, invoice.total, invoice.credited + amount, already, invoice.currency)


def _legs(connection: Connection, invoice: Invoice, amount: Decimal, tax: Decimal) -> list[Leg]:
    """Return the legs of a credit note. Of a top-up it takes back credits that were not drawn, and no revenue."""
    if invoice.reason != "top_up":
        return [*leg("refunds", "receivable", amount - tax), *leg("tax", "receivable", tax)]
    if not credits.take_back(connection, invoice.id, invoice.account_id, amount):
        raise Conflict("The credits of the top-up are not paid, or less of them is left.", code="credits_drawn")
    return leg("credits", "receivable", amount)


def _return(
    connection: Connection,
    note: CreditNote,
    excess: Decimal,
    refundable: Sequence[tuple[str, Decimal]],
    refund: Refund,
) -> None:
    """Refund what was paid through gateways first; the rest was drawn from credits, and becomes one."""
    rest = excess
    for payment_id, amount in _parts(refundable, excess):
        refund(payment_id, amount, note.id)
        rest -= amount
    if rest:
        reason, priority = f"Credit note {note.number}", credits.BOUGHT_PRIORITY
        grant = credits.insert(connection, note, rest, reason=reason, priority=priority)
        legs = leg("receivable", "credits", rest)
        postings.post(connection, note.account_id, "grant", grant.id, legs, currency=note.currency)


def _parts(refundable: Iterable[tuple[str, Decimal]], excess: Decimal) -> Iterable[tuple[str, Decimal]]:
    """Yield what each payment refunds of the excess."""
    for payment_id, left in refundable:
        if (part := min(left, excess)) > 0:
            yield payment_id, part
            excess -= part


def of_foreign_refund(connection: Connection, payment: Payment, refund: GatewayRefund) -> GatewayRefund:
    """Issue the credit note of a refund that was made at the gateway itself, unless it has one. Returns the refund.

    Without one, as where the credits of a top-up were drawn, the audit of the books names the refund.
    """
    if payment.invoice_id is None or refund.credit_note_id is not None or refund.state == "failed":
        return refund
    new = NewCreditNote("Refunded at the payment gateway", refund.amount, refunded=True)
    try:
        with connection.transaction():
            note = issue(connection, payment.invoice_id, payment.account_id, new, _refund_nothing)
    except RequestError as error:
        log.warning("Refund %s, made at the gateway, has no credit note: %s", refund.id, error.message)
        return refund
    credit_notes.link_refund(connection, note, refund.id)
    return replace(refund, credit_note_id=note.id)


def _refund_nothing(payment_id: str, amount: Decimal, note_id: str) -> None:
    """Refund nothing: the gateway has done it."""

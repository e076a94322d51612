"""Finalise a draft: its totals, its postings, the credits that pay it, and last its number."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from models.billing import billing_details, credits, invoice_lines, invoices, numbering, postings
from models.billing.billing_details import BillingDetails
from models.billing.currencies import ZERO
from models.billing.invoice_lines import Line
from models.billing.invoices import Invoice, Totals
from models.billing.numbering import Seller
from models.billing.postings import Leg, leg
from models.platform.database import Connection
from pipelines.billing.invoice_email import enqueue_invoice
from pipelines.billing.tax import tax_on


def finalise(connection: Connection, invoice_id: str, account_id: str) -> Invoice:
    """Finalise an invoice in the caller's transaction. One that is finalised already is returned as it is.

    Locks the account's details, the invoice, its grants and last the seller.
    """
    details = billing_details.lock(connection, account_id)
    invoice = invoices.lock(connection, invoice_id, account_id)
    if invoice.state != "draft":
        return invoice
    lines = invoice_lines.read_lines(connection, invoice_id, account_id)
    totals = _totals(connection, details, invoice, lines)
    _post(connection, invoice, [*_line_legs(lines), *leg("receivable", "tax", totals.tax)], totals)
    if totals.returned:
        _grant(connection, details, invoice, totals.returned)
    number, seller = numbering.next_invoice_number(connection), numbering.read_seller(connection)
    printed = {**parties(seller, details), "paid_from_credits": str(totals.paid)}
    finalised = invoices.set_finalised(connection, invoice, totals, seller, number, printed)
    enqueue_invoice(connection, details, finalised)
    return finalised


def _totals(connection: Connection, details: BillingDetails, invoice: Invoice, lines: Sequence[Line]) -> Totals:
    """Add up the rounded lines, and draw the credits. A top-up is neither taxed nor paid from credits."""
    subtotal = sum((line.amount for line in lines), ZERO)
    top_up = sum((line.amount for line in lines if line.kind == "top_up"), ZERO)
    tax = tax_on(subtotal - top_up, details.tax_rate, invoice.currency)
    total = subtotal + tax
    drawable = max(total, ZERO) if not top_up else ZERO
    paid = credits.draw(connection, details, invoice.id, drawable) if drawable else ZERO
    return Totals(subtotal, tax, total, paid, returned=max(-total, ZERO))


def _line_legs(lines: Iterable[Line]) -> Iterable[Leg]:
    """Yield the legs of the lines. A line of usage clears its exact amount: the rest is a difference of rounding."""
    for line in lines:
        if line.kind == "usage":
            yield from leg("receivable", "usage_unbilled", line.amount)
            yield from leg("rounding", "usage_unbilled", line.exact - line.amount)
        else:
            yield from leg("receivable", "credits" if line.kind == "top_up" else "revenue", line.amount)


def _post(connection: Connection, invoice: Invoice, legs: Iterable[Leg], totals: Totals) -> None:
    """Post the invoice, and what was drawn for it."""
    account_id, currency = invoice.account_id, invoice.currency
    postings.post(connection, account_id, "invoice", invoice.id, legs, currency=currency)
    drawn = leg("credits", "receivable", totals.paid)
    postings.post(connection, account_id, "draw", invoice.id, drawn, currency=currency)


def _grant(connection: Connection, details: BillingDetails, invoice: Invoice, amount: Decimal) -> None:
    """Make a negative total a credit of the customer, who has paid it with an earlier invoice."""
    grant = credits.insert(
        connection, details, amount, reason="Balance of an invoice", priority=credits.BOUGHT_PRIORITY,
        invoice_id=invoice.id,
    )  # fmt: skip
    legs = leg("receivable", "credits", amount)
    postings.post(connection, invoice.account_id, "grant", grant.id, legs, currency=invoice.currency)


def parties(seller: Seller, details: BillingDetails) -> Mapping[str, Any]:
    """Return the seller, the customer and the tax as they are now, for an invoice that keeps them."""
    return {
        "seller": {name: getattr(seller, name) for name in ("name", "address", "email", "tax_id", "note")},
        "customer": {name: getattr(details, name) for name in ("name", "address", "country", "email", "tax_id")},
        "tax": {"name": details.tax_name, "rate": str(details.tax_rate), "note": details.tax_note},
    }

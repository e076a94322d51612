"""What an invoice or a credit note says, apart from how a page or a PDF lays it out.

It depends only on what never changes once it has a number, so that it is the same whenever it is read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from models.billing.credit_notes import CreditNote
from models.billing.currencies import ZERO, format_amount, minor_digits
from models.billing.invoice_lines import Line
from models.billing.invoices import Invoice

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Document:
    """The texts of an invoice or a credit note, all of them plain.

    facts   its number, dates and so on, by name
    rows    the lines: description, quantity and amount
    totals  amounts by name; the last one is the result
    notes   paragraphs below the totals
    """

    title: str
    issued_at: datetime
    facts: Pairs
    seller: Sequence[str]
    customer: Sequence[str]
    rows: Sequence[tuple[str, str, str]]
    totals: Pairs
    notes: Sequence[str]


def invoice_document(invoice: Invoice, lines: Iterable[Line]) -> Document:
    """Return the document of a finalised invoice."""
    assert invoice.finalised_at is not None
    parties = invoice.parties or {}
    return Document(
        title=f"Invoice {invoice.number}",
        issued_at=invoice.finalised_at,
        facts=_invoice_facts(invoice),
        seller=_address(parties["seller"]),
        customer=_address(parties["customer"]),
        rows=[(_description(line), f"{line.quantity:,f}", money(line.amount, invoice.currency)) for line in lines],
        totals=_invoice_totals(invoice, parties),
        notes=_notes(parties),
    )


def credit_note_document(note: CreditNote, invoice: Invoice) -> Document:
    """Return the document of a credit note of an invoice."""
    net, currency = note.amount - note.tax, note.currency
    totals = [("Subtotal", money(-net, currency))]
    if note.tax:
        totals.append((_tax_name(note.parties), money(-note.tax, currency)))
    description = f"{note.reason} (job {note.job_id})" if note.job_id else note.reason
    return Document(
        title=f"Credit note {note.number}",
        issued_at=note.created_at,
        facts=[("Number", note.number), ("Date", day(note.created_at)), ("Of invoice", invoice.number or "")],
        seller=_address(note.parties["seller"]),
        customer=_address(note.parties["customer"]),
        rows=[(description, "1", money(-net, currency))],
        totals=[*totals, ("Total", money(-note.amount, currency))],
        notes=_notes(note.parties),
    )


def money(amount: Decimal, currency: str) -> str:
    """Write an amount for people: `1,234.50 EUR`. One with more digits than its currency has keeps them."""
    if amount != round(amount, minor_digits(currency)):
        return f"{format_amount(amount)} {currency}"
    return f"{amount:,.{minor_digits(currency)}f} {currency}"


def day(time: datetime) -> str:
    """Write a date in UTC for people: `1 March 2026`."""
    return f"{time.astimezone(UTC):%-d %B %Y}"


def _description(line: Line) -> str:
    """Return what a line is for; of usage also its tokens, whose quantity is that of jobs."""
    if line.kind != "usage":
        return line.description
    tokens = line.details
    return f"{line.description}: {tokens['input_tokens']:,} input and {tokens['output_tokens']:,} output tokens"


def _invoice_facts(invoice: Invoice) -> Pairs:
    assert invoice.finalised_at is not None
    facts = [("Number", invoice.number or ""), ("Date", day(invoice.finalised_at))]
    if invoice.due_at is not None and invoice.total > 0:
        facts.append(("Due", day(invoice.due_at)))
    if invoice.period_start is not None and invoice.period_end is not None:
        last = invoice.period_end - timedelta(microseconds=1)  # the end itself belongs to the next period
        facts.append(("Period", f"{day(invoice.period_start)} to {day(last)}"))
    return facts


def _invoice_totals(invoice: Invoice, parties: Mapping[str, Any]) -> Pairs:
    currency, credits = invoice.currency, Decimal(parties.get("paid_from_credits", 0))
    totals = [("Subtotal", money(invoice.subtotal, currency))]
    if invoice.tax or Decimal(parties["tax"]["rate"]):
        totals.append((_tax_name(parties), money(invoice.tax, currency)))
    totals.append(("Total", money(invoice.total, currency)))
    if credits:
        totals.append(("Paid from credits", money(-credits, currency)))
    if credits or invoice.total < 0:
        totals.append(("Amount due", money(max(invoice.total - credits, ZERO), currency)))
    return totals


def _tax_name(parties: Mapping[str, Any]) -> str:
    tax = parties["tax"]
    return f"{tax['name'] or 'Tax'} {format_amount(Decimal(tax['rate']))} %"


def _address(party: Mapping[str, Any]) -> list[str]:
    """Return the lines that name a party."""
    lines = [party["name"], *party["address"].splitlines(), party.get("country", ""), party["email"]]
    if party["tax_id"]:
        lines.append(f"Tax id {party['tax_id']}")
    return [line.strip() for line in lines if line.strip()]


def _notes(parties: Mapping[str, Any]) -> list[str]:
    notes = (parties["tax"]["note"], parties["seller"].get("note", ""))
    return [note for note in notes if note]

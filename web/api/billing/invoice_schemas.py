"""Response schemas of invoices, credit notes and credits, and how records become them."""

from collections.abc import Sequence
from typing import Any, Literal

from typing_extensions import TypedDict

from models.billing.credit_notes import CreditNote
from models.billing.credits import Grant
from models.billing.currencies import format_amount
from models.billing.invoice_lines import Line, LineKind
from models.billing.invoices import Invoice, InvoiceState, Reason
from models.billing.usage_lines import UsageOfLine
from web.http.timestamps import to_unix


class InvoiceObject(TypedDict):
    """An invoice. Amounts are decimal strings, times in Unix seconds; `number` is null while it is a draft."""

    id: str
    object: Literal["invoice"]
    number: str | None
    state: InvoiceState
    reason: Reason
    subscription_id: str | None
    currency: str
    period_start: int | None
    period_end: int | None
    subtotal: str
    tax: str
    total: str
    paid: str
    credited: str
    amount_due: str
    created_at: int
    finalised_at: int | None
    due_at: int | None
    paid_at: int | None
    voided_at: int | None


class InvoiceLineObject(TypedDict):
    """A line of an invoice. `details` of a line of usage are its model, class, agent, jobs and tokens."""

    position: int
    kind: LineKind
    description: str
    quantity: str
    amount: str
    details: dict[str, Any]


class CreditNoteObject(TypedDict):
    """A credit note. `amount` includes `tax`; `job_id` is the job that it is for, if it is for one."""

    id: str
    object: Literal["credit_note"]
    number: str
    invoice_id: str
    currency: str
    amount: str
    tax: str
    reason: str
    job_id: str | None
    created_at: int


class InvoiceWithLines(InvoiceObject):
    """An invoice with its lines, its credit notes, and the seller, the customer and the tax as they were."""

    lines: list[InvoiceLineObject]
    credit_notes: list[CreditNoteObject]
    parties: dict[str, Any] | None


class AdminInvoice(InvoiceObject):
    """An invoice as operators see it."""

    account_id: str


class LineUsageObject(TypedDict):
    """A job that a line of an invoice sums up. `amount` is exact."""

    id: str
    object: Literal["invoice.usage"]
    job_id: str
    model: str
    agent: str | None
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    amount: str
    created_at: int


class GrantObject(TypedDict):
    """Credits of an account. `source` is how it got them; `remaining` can still be drawn."""

    id: str
    object: Literal["credit_grant"]
    source: Literal["given", "bought"]
    invoice_id: str | None
    currency: str
    amount: str
    remaining: str
    priority: int
    reason: str
    expires_at: int | None
    expired_at: int | None
    created_at: int


def invoice_object(invoice: Invoice) -> InvoiceObject:
    """Convert an invoice to its API object."""
    currency = invoice.currency
    return {
        "id": invoice.id,
        "object": "invoice",
        "number": invoice.number,
        "state": invoice.state,
        "reason": invoice.reason,
        "subscription_id": invoice.subscription_id,
        "currency": currency,
        "period_start": to_unix(invoice.period_start),
        "period_end": to_unix(invoice.period_end),
        "subtotal": format_amount(invoice.subtotal, currency),
        "tax": format_amount(invoice.tax, currency),
        "total": format_amount(invoice.total, currency),
        "paid": format_amount(invoice.paid, currency),
        "credited": format_amount(invoice.credited, currency),
        "amount_due": format_amount(invoice.amount_due, currency),
        "created_at": int(invoice.created_at.timestamp()),
        "finalised_at": to_unix(invoice.finalised_at),
        "due_at": to_unix(invoice.due_at),
        "paid_at": to_unix(invoice.paid_at),
        "voided_at": to_unix(invoice.voided_at),
    }


def invoice_with_lines(invoice: Invoice, lines: Sequence[Line], notes: Sequence[CreditNote]) -> InvoiceWithLines:
    """Convert an invoice with all that belongs to it."""
    return {
        **invoice_object(invoice),
        "lines": [_line_object(line, invoice.currency) for line in lines],
        "credit_notes": [credit_note_object(note) for note in notes],
        "parties": dict(invoice.parties) if invoice.parties else None,
    }


def admin_invoice(invoice: Invoice) -> AdminInvoice:
    """Convert an invoice to its API object for operators."""
    return {**invoice_object(invoice), "account_id": invoice.account_id}


def _line_object(line: Line, currency: str) -> InvoiceLineObject:
    return {
        "position": line.position,
        "kind": line.kind,
        "description": line.description,
        "quantity": format_amount(line.quantity),
        "amount": format_amount(line.amount, currency),
        "details": dict(line.details),
    }


def credit_note_object(note: CreditNote) -> CreditNoteObject:
    """Convert a credit note to its API object."""
    return {
        "id": note.id,
        "object": "credit_note",
        "number": note.number,
        "invoice_id": note.invoice_id,
        "currency": note.currency,
        "amount": format_amount(note.amount, note.currency),
        "tax": format_amount(note.tax, note.currency),
        "reason": note.reason,
        "job_id": note.job_id,
        "created_at": int(note.created_at.timestamp()),
    }


def line_usage_object(usage: UsageOfLine) -> LineUsageObject:
    """Convert a job of a line to its API object."""
    return {
        "id": usage.job_id,
        "object": "invoice.usage",
        "job_id": usage.job_id,
        "model": usage.model,
        "agent": usage.agent or None,
        "input_tokens": usage.input_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "amount": format_amount(usage.amount),
        "created_at": int(usage.created_at.timestamp()),
    }


def grant_object(grant: Grant) -> GrantObject:
    """Convert a grant of credits to its API object."""
    return {
        "id": grant.id,
        "object": "credit_grant",
        "source": "bought" if grant.invoice_id else "given",
        "invoice_id": grant.invoice_id,
        "currency": grant.currency,
        "amount": format_amount(grant.amount, grant.currency),
        "remaining": format_amount(grant.remaining, grant.currency),
        "priority": grant.priority,
        "reason": grant.reason,
        "expires_at": to_unix(grant.expires_at),
        "expired_at": to_unix(grant.expired_at),
        "created_at": int(grant.created_at.timestamp()),
    }

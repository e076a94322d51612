"""Render the e-mail with an invoice or a credit note, when it is sent."""

from pathlib import Path

from models.accounts import emails, members
from models.billing import billing_details, credit_notes, invoice_lines, invoices
from models.billing.invoices import Invoice
from models.jobs.jobs import Job
from models.platform.database import Connection
from models.platform.errors import NotFound
from pipelines.billing.invoice_document import credit_note_document, day, invoice_document, money
from pipelines.billing.invoice_pdf import render_pdf
from pipelines.delivery import email_templates
from pipelines.delivery.email_templates import EmailContent


def render_invoice(connection: Connection, job: Job, fonts: Path) -> tuple[str, EmailContent] | None:
    """Return the recipient's address and the e-mail; None if the account, the owner or the invoice is gone or void."""
    try:
        invoice = invoices.read_any(connection, job.arguments["invoice_id"])
    except NotFound:
        return None
    address = _address(connection, job, invoice.account_id)
    account = members.read_account(connection, invoice.account_id)
    if not address or account is None or invoice.state == "void":
        return None
    return address, _content(connection, invoice, account.name, fonts)


def render_credit_note(connection: Connection, job: Job, fonts: Path) -> tuple[str, EmailContent] | None:
    """Return the recipient's address and the e-mail; None if the account, the owner or the credit note is gone."""
    note = credit_notes.read_any(connection, job.arguments["credit_note_id"])
    if note is None:
        return None
    address, account = _address(connection, job, note.account_id), members.read_account(connection, note.account_id)
    if not address or account is None:
        return None
    invoice = invoices.read(connection, note.invoice_id, note.account_id)
    pdf = render_pdf(credit_note_document(note, invoice), fonts)
    seller, total = note.parties["seller"]["name"], money(note.amount, note.currency)
    return address, email_templates.credit_note(note.number, invoice.number or "", seller, account.name, total, pdf)


def _address(connection: Connection, job: Job, account_id: str) -> str | None:
    """Return the address of the owner whom the job names, or the account's billing address."""
    if user_id := job.arguments.get("user_id"):
        user = emails.read_user(connection, user_id)
        return user.email if user else None
    details = billing_details.read(connection, account_id)
    return details.email if details else None


def _content(connection: Connection, invoice: Invoice, account: str, fonts: Path) -> EmailContent:
    lines = invoice_lines.read_lines(connection, invoice.id, invoice.account_id)
    document = invoice_document(invoice, lines)
    seller = (invoice.parties or {})["seller"]["name"]
    total = money(invoice.total, invoice.currency)
    return email_templates.invoice(
        invoice.number or "", seller, account, total, _due(invoice), render_pdf(document, fonts)
    )


def _due(invoice: Invoice) -> str:
    if invoice.amount_due == 0 or invoice.due_at is None:
        return "Nothing is left to be paid."
    return f"{money(invoice.amount_due, invoice.currency)} is due by {day(invoice.due_at)}."

"""Enqueue the e-mails with an invoice or a credit note: to the billing address, or without one to the owners."""

from typing import Literal

from models.accounts import members
from models.billing.billing_details import BillingDetails
from models.billing.credit_notes import CreditNote
from models.billing.invoices import Invoice
from models.jobs.jobs import NewJob, enqueue
from models.platform.database import Connection
from pipelines.accounts.email_jobs import UNIQUE_KEY_PREFIX, EmailTemplate, email_job

#: The templates, each with the argument that names its document.
DOCUMENTS: dict[EmailTemplate, Literal["invoice_id", "credit_note_id"]] = {
    EmailTemplate.INVOICE: "invoice_id",
    EmailTemplate.CREDIT_NOTE: "credit_note_id",
}


def enqueue_invoice(connection: Connection, details: BillingDetails, invoice: Invoice) -> None:
    """Enqueue the e-mails with a finalised invoice in the caller's transaction. One of nothing is not sent."""
    if invoice.total != 0:
        _enqueue(connection, details, EmailTemplate.INVOICE, invoice.id)


def enqueue_credit_note(connection: Connection, details: BillingDetails, note: CreditNote) -> None:
    """Enqueue the e-mails with a credit note in the caller's transaction."""
    _enqueue(connection, details, EmailTemplate.CREDIT_NOTE, note.id)


def _enqueue(connection: Connection, details: BillingDetails, template: EmailTemplate, document_id: str) -> None:
    if details.email:
        enqueue(connection, _job(template, document_id, None))
        return
    for user_id in members.list_owner_ids(connection, details.account_id):
        enqueue(connection, _job(template, document_id, user_id))


def _job(template: EmailTemplate, document_id: str, user_id: str | None) -> NewJob:
    key = f"{UNIQUE_KEY_PREFIX}:{template}:{document_id}:{user_id or 'billing'}"
    return email_job(template, unique_key=key, user_id=user_id, **{DOCUMENTS[template]: document_id})

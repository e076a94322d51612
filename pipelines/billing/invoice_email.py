"""Enqueue the e-mails with an invoice: to the billing address, or without one to the owners of the account."""

from models.accounts import members
from models.billing.billing_details import BillingDetails
from models.billing.invoices import Invoice
from models.jobs.jobs import NewJob, enqueue
from models.platform.database import Connection
from pipelines.accounts.email_jobs import UNIQUE_KEY_PREFIX, EmailTemplate, email_job


def enqueue_invoice(connection: Connection, details: BillingDetails, invoice: Invoice) -> None:
    """Enqueue the e-mails with a finalised invoice in the caller's transaction. One of nothing is not sent."""
    if invoice.total == 0:
        return
    if details.email:
        enqueue(connection, _job(invoice, None))
        return
    for user_id in members.list_owner_ids(connection, invoice.account_id):
        enqueue(connection, _job(invoice, user_id))


def _job(invoice: Invoice, user_id: str | None) -> NewJob:
    key = f"{UNIQUE_KEY_PREFIX}:{EmailTemplate.INVOICE}:{invoice.id}:{user_id or 'billing'}"
    return email_job(EmailTemplate.INVOICE, unique_key=key, invoice_id=invoice.id, user_id=user_id)

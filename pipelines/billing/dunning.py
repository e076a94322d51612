"""Jobs `invoice.collect` and `subscription.notify`: try a failed payment again, and inform the account's admins."""

from dataclasses import replace
from functools import partial

from models.accounts import members
from models.billing import billing_details, dunning, invoices, payments, subscriptions
from models.billing.invoices import Invoice
from models.billing.payments import GatewayName
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import NewJob
from models.platform.database import Connection
from pipelines.accounts.email_jobs import EmailTemplate, email_job
from pipelines.billing.collection import collect


def run_collect(gateway: GatewayName, attempt: Attempt) -> Ending:
    """Request the payment of an open invoice again, in the transaction that ends the job."""
    ending = plain_ending(attempt, "completed", result={"invoice_id": attempt.job.arguments["invoice_id"]})
    arguments = attempt.job.arguments
    record = partial(
        collect_again,
        gateway=gateway,
        account_id=attempt.job.account_id,
        invoice_id=arguments["invoice_id"],
        number=arguments["number"],
    )
    return Ending("completed", ending.events, result=ending.result, record=record)


def run_notify(attempt: Attempt) -> Ending:
    """Enqueue an e-mail to each admin of the account."""
    arguments = attempt.job.arguments
    ending = plain_ending(attempt, "completed", result={"event": arguments["event"]})
    record = partial(
        _emails, account_id=attempt.job.account_id, invoice_id=arguments["invoice_id"], event=arguments["event"]
    )
    return Ending("completed", ending.events, result=ending.result, record=record)


def _emails(connection: Connection, *, account_id: str, invoice_id: str, event: str) -> list[NewJob]:
    admins = members.list_admins(connection, account_id)
    template = EmailTemplate(event)
    return [email_job(template, account_id=account_id, user_id=admin, invoice_id=invoice_id) for admin in admins]


def collect_again(
    connection: Connection, *, gateway: GatewayName, account_id: str, invoice_id: str, number: int
) -> list[NewJob]:
    """Count the try, and request the payment unless one is under way. Returns its job.

    number  0: the invoice is due, and was to be paid by bank transfer
    """
    if billing_details.read(connection, account_id) is None:  # the account was erased
        return []
    billing_details.lock(connection, account_id)
    invoice = invoices.lock_if_any(connection, invoice_id, account_id)
    if invoice is None or invoice.state != "open":
        return _settled(connection, invoice)
    if number and not invoices.count_try(connection, invoice, number):
        return []
    newest = payments.list_payments(connection, account_id, invoice_id=invoice_id, limit=1)
    if newest and newest[0].state in ("pending", "requires_action"):
        missing = newest[0].gateway == "manual"
        return dunning.transfer_missing(connection, replace(invoice, tries=number)) if missing else []
    return collect(gateway, connection, invoice) if number else []


def _settled(connection: Connection, invoice: Invoice | None) -> list[NewJob]:
    """Activate the subscription of an invoice that is void or paid meanwhile, if it waits for no other one."""
    if invoice is None or invoice.subscription_id is None:
        return []
    subscription = subscriptions.lock(connection, invoice.subscription_id, invoice.account_id)
    if subscription is not None and subscription.state == "past_due":
        dunning.activate(connection, subscription)
    return []

"""The job `invoice.draft`: collect the usage of a period, finalise the invoice and request its payment.

A crash between two transactions leaves a draft with a part of the usage; the next attempt continues. The last
transaction does all the rest, so that an invoice is finalised and its payment requested exactly once.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.billing import billing_details, invoice_lines, invoices, usage_lines
from models.billing.currencies import minor_digits, rounded
from models.billing.invoice_lines import NewLine
from models.billing.invoices import Invoice
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import NewJob, enqueue
from models.platform.database import Connection
from pipelines.billing import usage_charges
from pipelines.billing.finalise import finalise

#: Requests the payment of a finalised invoice, or continues what waited for it if nothing is due. Returns the jobs.
Collect = Callable[[Connection, Invoice], Sequence[NewJob]]


def run(collect: Collect, attempt: Attempt) -> Ending:
    """Finalise the invoice of the job, and collect it."""
    job = attempt.job
    while _assign(attempt) == usage_lines.BATCH:
        attempt.check()
    with attempt.database.transaction() as connection:
        invoice = finish(connection, job.arguments["invoice_id"], job.account_id, job.arguments.get("included"))
        for follow_up in collect(connection, invoice) if invoice else ():
            enqueue(connection, follow_up)
    return plain_ending(attempt, "completed", result={"invoice_id": invoice.id if invoice else None})


def _assign(attempt: Attempt) -> int:
    """Assign a batch of usage to the draft, in a transaction of its own. Returns how many records."""
    invoice_id, account_id = attempt.job.arguments["invoice_id"], attempt.job.account_id
    with attempt.database.transaction() as connection:
        return usage_lines.assign(connection, invoice_id, account_id, usage_lines.BATCH)


def finish(connection: Connection, invoice_id: str, account_id: str, terms: Mapping[str, Any] | None) -> Invoice | None:
    """Finalise a draft. Returns None if an earlier attempt has done it, or there is nothing or nobody to invoice."""
    details = billing_details.lock_if_any(connection, account_id)
    invoice = invoices.lock_if_any(connection, invoice_id, account_id)
    if details is None or invoice is None or invoice.state != "draft":
        return None
    lines = _lines(connection, invoice, terms)
    if invoice.reason == "usage" and not any(rounded(line.amount, invoice.currency) for line in lines):
        usage_lines.release(connection, invoice_id, account_id)  # too little: it is on the next invoice
        invoices.delete_draft(connection, invoice)
        return None
    invoice_lines.append_lines(connection, invoice_id, lines, minor_digits(invoice.currency))
    return finalise(connection, invoice_id, account_id)


def _lines(connection: Connection, invoice: Invoice, terms: Mapping[str, Any] | None) -> list[NewLine]:
    groups = usage_lines.groups(connection, invoice.id, invoice.account_id)
    usage = usage_charges.usage_lines(groups)
    return [*usage, *usage_charges.plan_lines(usage, terms, invoice.currency)]

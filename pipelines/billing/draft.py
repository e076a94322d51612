"""The job `invoice.draft`: collect the usage of a period, finalise the invoice and request its payment.

A crash between two transactions leaves a draft with a part of the usage; the next attempt continues. The last
transaction does all the rest, so that an invoice is finalised and its payment requested exactly once.
"""

from collections.abc import Mapping
from typing import Any

from models.billing import invoice_lines, invoices, usage_lines
from models.billing.currencies import minor_digits, rounded
from models.billing.invoices import Invoice
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import enqueue
from models.platform.database import Connection
from pipelines.billing.collection import collect
from pipelines.billing.finalise import finalise
from pipelines.billing.usage_charges import plan_lines
from pipelines.billing.usage_charges import usage_lines as lines_of


def run(gateway: str, attempt: Attempt) -> Ending:
    """Finalise the invoice of the job, and request its payment from the gateway."""
    arguments = attempt.job.arguments
    invoice_id, account_id = arguments["invoice_id"], attempt.job.account_id
    while _assign(attempt, invoice_id, account_id) == usage_lines.BATCH:
        attempt.check()
    with attempt.database.transaction() as connection:
        invoice = _finish(connection, gateway, invoice_id, account_id, arguments.get("included"))
    return plain_ending(attempt, "completed", result={"invoice_id": invoice.id if invoice else None})

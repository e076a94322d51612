"""Issue invoices: lines, tax, number, postings and the credits that pay them, in the caller's transaction."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from models.billing import billing_details, invoice_lines, invoices, usage_lines
from models.billing.currencies import minor_digits
from models.billing.invoice_lines import NewLine
from models.billing.invoices import Invoice, Reason
from models.jobs.jobs import NewJob
from models.platform.database import Connection
from models.platform.errors import Conflict
from pipelines.billing.finalise import finalise

Period = tuple[datetime, datetime]


def issue(
    connection: Connection,
    account_id: str,
    *,
    reason: Reason,
    lines: Sequence[NewLine],
    subscription_id: str | None = None,
    period: Period | None = None,
    invoice_id: str | None = None,
) -> Invoice:
    """Issue an invoice at once. The caller requests the payment of `amount_due`; without one it is paid already.

    invoice_id  of the new invoice; None: generated

    The seller's row stays locked until the transaction ends: the caller does nothing slow after it.
    """
    invoice = _insert_draft(connection, account_id, reason, lines, subscription_id, period, invoice_id)
    return finalise(connection, invoice.id, account_id)


def start_draft(
    connection: Connection,
    account_id: str,
    *,
    reason: Reason,
    subscription_id: str | None,
    period_start: datetime,
    period_end: datetime,
    lines: Sequence[NewLine],
    included: Mapping[str, Any] | None = None,
) -> tuple[Invoice, NewJob]:
    """Insert a draft, and return it with its job, which collects the usage before `period_end`, finalises and collects.

    included  `{"amount", "overage"}` of the plan of the period that ends; None: of the subscription's present version,
              so call it before the subscription is moved to another one
    """
    period = (period_start, period_end)
    invoice = _insert_draft(connection, account_id, reason, lines, subscription_id, period)
    terms = included or usage_lines.included_usage(connection, subscription_id, account_id)
    arguments = {"invoice_id": invoice.id, "included": terms}
    return invoice, NewJob(kind="invoice.draft", account_id=account_id, arguments=arguments)


def _insert_draft(
    connection: Connection,
    account_id: str,
    reason: Reason,
    lines: Sequence[NewLine],
    subscription_id: str | None,
    period: Period | None,
    invoice_id: str | None = None,
) -> Invoice:
    currency = billing_details.ensure(connection, account_id).currency
    invoice = invoices.insert_draft(
        connection, account_id, reason=reason, currency=currency, subscription_id=subscription_id, period=period,
        invoice_id=invoice_id,
    )  # fmt: skip
    if invoice is None:
        raise Conflict("The usage of this period is on an invoice already.")
    invoice_lines.append_lines(connection, invoice.id, lines, minor_digits(currency))
    return invoice

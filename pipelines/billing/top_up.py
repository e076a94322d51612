"""Top up an account's credits: an invoice whose payment becomes a grant."""

from decimal import Decimal

from models.billing import billing_details
from models.billing.currencies import check_amount, format_amount
from models.billing.invoice_lines import NewLine
from models.billing.invoices import Invoice
from models.platform.database import Connection
from pipelines.billing import invoicing


def start(
    connection: Connection,
    account_id: str,
    amount: Decimal,
    *,
    automatic: bool = False,
    invoice_id: str | None = None,
) -> Invoice:
    """Issue the invoice of a top-up in the account's currency. The caller requests its payment.

    Raises InvalidRequest for an amount that the currency does not have.
    """
    currency = billing_details.ensure(connection, account_id).currency
    amount = check_amount(amount, currency)
    details = {"automatic": "true"} if automatic else {}
    line = NewLine("top_up", f"Credits of {format_amount(amount, currency)} {currency}", amount, details=details)
    return invoicing.issue(connection, account_id, reason="top_up", lines=[line], invoice_id=invoice_id)

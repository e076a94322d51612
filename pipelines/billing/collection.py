"""Request the payment of a finalised invoice."""

from models.billing import dunning, payments
from models.billing.invoices import Invoice
from models.billing.payments import GatewayName
from models.jobs.jobs import NewJob
from models.platform.database import Connection


def collect(gateway: GatewayName, connection: Connection, invoice: Invoice) -> list[NewJob]:
    """Insert the payment of what is due; without it go on as if it was paid. Returns the jobs to insert."""
    if invoice.amount_due == 0:
        return dunning.invoice_paid(connection, invoice)
    _, job = payments.new_payment(
        connection,
        invoice.account_id,
        invoice_id=invoice.id,
        amount=invoice.amount_due,
        currency=invoice.currency,
        gateway=gateway,
    )
    return [job]

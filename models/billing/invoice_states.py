"""Void an invoice, or write it off."""

from typing import Any

from psycopg.rows import DictRow

from models.billing import billing_details, invoices, postings
from models.billing.currencies import ZERO
from models.billing.invoices import COLUMNS, Invoice
from models.billing.postings import leg, reversed_legs
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import Conflict

VOID = f"""
UPDATE invoices SET state = 'void', voided_at = now(), paid = 0
WHERE id = %(id)s AND account_id = %(account_id)s RETURNING {COLUMNS}
"""

RELEASE_USAGE = "UPDATE usage_records SET billed_on = NULL WHERE billed_on = %(id)s AND account_id = %(account_id)s"

# What was drawn can be drawn again.
GIVE_BACK = """
WITH draws AS (
    DELETE FROM credit_draws WHERE invoice_id = %(id)s RETURNING grant_id, amount
)
UPDATE credit_grants AS grants SET drawn = drawn - draws.amount FROM draws
WHERE grants.id = draws.grant_id AND grants.account_id = %(account_id)s
RETURNING grants.id, grants.invoice_id, grants.expired_at, draws.amount
"""

# A bank transfer is never under way: one that arrives nevertheless becomes a credit.
PAYMENTS = """
SELECT coalesce(bool_or(state = 'pending' AND gateway <> 'manual'), false) AS pending,
       coalesce(bool_or(state IN ('succeeded', 'refunded', 'disputed')), false) AS received
FROM payments WHERE invoice_id = %(id)s AND account_id = %(account_id)s
"""


def void(connection: Connection, invoice_id: str, account_id: str) -> Invoice:
    """Take an invoice back with all its postings. Its usage is on no invoice again, and its credits can be drawn.

    Raises Conflict if it is not open, paid from credits or written off, if a payment was received or is in progress,
    or if there is a credit note of it.
    """
    billing_details.lock_if_any(connection, account_id)
    invoice = invoices.lock(connection, invoice_id, account_id)
    if invoice.state == "void":
        return invoice
    _check_voidable(connection, invoice)
    parameters = {"id": invoice.id, "account_id": account_id}
    _reverse(connection, invoice)
    connection.execute(RELEASE_USAGE, parameters)
    for row in fetch_all(connection, GIVE_BACK, parameters):
        _expire_again(connection, invoice, row)
    voided = fetch_one(connection, VOID, parameters)
    assert voided is not None
    return Invoice(**voided)


def _check_voidable(connection: Connection, invoice: Invoice) -> None:
    if invoice.state == "draft":
        raise Conflict("The invoice is a draft: its usage is being collected.", code="invoice_state")
    payments = fetch_one(connection, PAYMENTS, {"id": invoice.id, "account_id": invoice.account_id})
    assert payments is not None
    if payments["pending"]:
        raise Conflict("A payment of the invoice is in progress.", code="payment_pending")
    if payments["received"] or invoice.credited or invoice.returned:
        raise Conflict("The invoice was paid or credited. Issue a credit note instead.", code="invoice_state")


def _reverse(connection: Connection, invoice: Invoice) -> None:
    """Post the invoice, its draws and its write-off in the other direction."""
    legs = [leg for kind in ("invoice", "draw") for leg in postings.posted_legs(connection, kind, invoice.id)]
    if invoice.state == "uncollectible":
        legs += leg("bad_debt", "receivable", invoice.balance)
    postings.post(connection, invoice.account_id, "void", invoice.id, reversed_legs(legs), currency=invoice.currency)


def _expire_again(connection: Connection, invoice: Invoice, row: DictRow) -> None:
    """Post the expiry of an amount that a void returns to a grant which has expired."""
    if row["expired_at"] is None:
        return
    reference = f"{row['id']}:{invoice.id}"
    legs = leg("credits", "revenue" if row["invoice_id"] else "promotions", row["amount"])
    postings.post(connection, invoice.account_id, "expiry", reference, legs, currency=invoice.currency)


WRITE_OFF = f"""
UPDATE invoices SET state = 'uncollectible'
WHERE id = %(id)s AND account_id = %(account_id)s AND state = 'open' RETURNING {COLUMNS}
"""


def write_off(connection: Connection, invoice_id: str, account_id: str) -> Invoice:
    """Expect the payment of an open invoice no longer. A payment that arrives nevertheless is applied.

    Raises Conflict if it is not open.
    """
    billing_details.lock_if_any(connection, account_id)
    invoice = invoices.lock(connection, invoice_id, account_id)
    if invoice.state == "uncollectible":
        return invoice
    row = fetch_one(connection, WRITE_OFF, {"id": invoice_id, "account_id": account_id})
    if row is None:
        raise Conflict(f"The invoice is {invoice.state}. Only an open one can be written off.", code="invoice_state")
    legs = leg("bad_debt", "receivable", max(invoice.balance, ZERO))
    postings.post(connection, account_id, "write_off", _reference(connection, invoice), legs, currency=invoice.currency)
    return Invoice(**row)


def _reference(connection: Connection, invoice: Invoice) -> str:
    """Return the reference of the write-off: of a second one, after a part was paid, with what is due then."""
    again: list[Any] = postings.posted_legs(connection, "write_off", invoice.id)
    return f"{invoice.id}:{invoice.balance}" if again else invoice.id

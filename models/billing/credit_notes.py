"""Credit notes: what an invoice amounts to less, by a document with a number of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from models.billing import invoices
from models.billing.invoices import Invoice
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import Conflict, NotFound
from models.platform.records import columns


@dataclass(frozen=True, slots=True)
class CreditNote:
    """A row of `credit_notes`. `amount` is with tax; `job_id` is the job that is refunded, if it is for one."""

    id: str
    account_id: str
    invoice_id: str
    seller_id: str
    number: str
    currency: str
    amount: Decimal
    tax: Decimal
    reason: str
    job_id: str | None
    parties: Mapping[str, Any]
    created_at: datetime


COLUMNS = columns(CreditNote)

INSERT = f"""
INSERT INTO credit_notes (id, account_id, invoice_id, seller_id, number, currency, amount, tax, reason, job_id, parties)
VALUES (%(id)s, %(account_id)s, %(invoice_id)s, %(seller_id)s, %(number)s, %(currency)s, %(amount)s, %(tax)s,
        %(reason)s, %(job_id)s, %(parties)s)
RETURNING {COLUMNS}
"""


def insert(
    connection: Connection,
    invoice: Invoice,
    *,
    note_id: str,
    number: str,
    amount: Decimal,
    tax: Decimal,
    reason: str,
    job_id: str | None,
) -> CreditNote:
    """Insert a credit note of a finalised invoice, with its parties. Raises Conflict for a second one of a job."""
    parameters = {
        "id": note_id,
        "account_id": invoice.account_id,
        "invoice_id": invoice.id,
        "seller_id": invoice.seller_id,
        "number": number,
        "currency": invoice.currency,
        "amount": amount,
        "tax": tax,
        "reason": reason,
        "job_id": job_id,
        "parties": Jsonb(dict(invoice.parties or {})),
    }
    try:
        row = fetch_one(connection, INSERT, parameters)
    except UniqueViolation:
        raise Conflict(f"Job '{job_id}' has a credit note already.", code="job_credited") from None
    assert row is not None
    return CreditNote(**row)


READ = f"SELECT {COLUMNS} FROM credit_notes WHERE id = %(id)s AND account_id = %(account_id)s"


def read(connection: Connection, note_id: str, account_id: str) -> CreditNote:
    """Return a credit note of the account. Raises NotFound."""
    row = fetch_one(connection, READ, {"id": note_id, "account_id": account_id})
    if row is None:
        raise NotFound(f"Credit note with id '{note_id}' not found.", param="credit_note_id")
    return CreditNote(**row)


def read_if_any(connection: Connection, note_id: str | None, account_id: str) -> CreditNote | None:
    """Return a credit note of the account, or None."""
    row = fetch_one(connection, READ, {"id": note_id, "account_id": account_id})
    return CreditNote(**row) if row else None


READ_ANY = f"SELECT {COLUMNS} FROM credit_notes WHERE id = %(id)s"


def read_any(connection: Connection, note_id: str) -> CreditNote | None:
    """Return a credit note of any account, for its e-mail."""
    row = fetch_one(connection, READ_ANY, {"id": note_id})
    return CreditNote(**row) if row else None


LIST = f"""
SELECT {COLUMNS} FROM credit_notes WHERE invoice_id = %(id)s AND account_id = %(account_id)s ORDER BY id LIMIT 1000
"""


def list_of_invoice(connection: Connection, invoice_id: str, account_id: str) -> list[CreditNote]:
    """Return the credit notes of an invoice, the oldest first, at most a thousand."""
    rows = fetch_all(connection, LIST, {"id": invoice_id, "account_id": account_id})
    return [CreditNote(**row) for row in rows]


TAX = "SELECT coalesce(sum(tax), 0) AS tax FROM credit_notes WHERE invoice_id = %(id)s AND account_id = %(account_id)s"


def credited_tax(connection: Connection, invoice: Invoice) -> Decimal:
    """Return the tax that the credit notes of an invoice have taken back."""
    row = fetch_one(connection, TAX, {"id": invoice.id, "account_id": invoice.account_id})
    assert row is not None
    return Decimal(row["tax"])


ADD = """
UPDATE invoices SET credited = credited + %(amount)s, returned = returned + %(excess)s,
    state = CASE WHEN total - paid - credited + returned + %(excess)s <= %(amount)s THEN 'paid' ELSE 'open' END,
    paid_at = coalesce(paid_at,
                       CASE WHEN total - paid - credited + returned + %(excess)s <= %(amount)s THEN now() END)
WHERE id = %(id)s AND account_id = %(account_id)s RETURNING state
"""


def add_to_invoice(connection: Connection, invoice: Invoice, amount: Decimal, excess: Decimal) -> None:
    """Count a credit note, of which `excess` was paid already and is returned to the customer.

    The invoice is open, or paid; afterwards it is paid if nothing is due.
    """
    parameters = {"id": invoice.id, "account_id": invoice.account_id, "amount": amount, "excess": excess}
    row = fetch_one(connection, ADD, parameters)
    if row and row["state"] == "paid" and invoice.state != "paid":
        invoices.record_event(connection, invoice, "invoice.paid")


LINK = "UPDATE refunds SET credit_note_id = %(note_id)s WHERE id = %(id)s AND account_id = %(account_id)s"


def link_refund(connection: Connection, note: CreditNote, refund_id: str) -> None:
    """Store which credit note a refund belongs to."""
    connection.execute(LINK, {"note_id": note.id, "id": refund_id, "account_id": note.account_id})


BILLED = """
SELECT billed_amount FROM usage_records
WHERE job_id = %(job_id)s AND billed_on = %(id)s AND account_id = %(account_id)s AND billed_amount IS NOT NULL
"""


def billed_amount(connection: Connection, invoice: Invoice, job_id: str) -> Decimal:
    """Return what a job cost on an invoice, exact and without tax. Raises NotFound if it is not on it."""
    row = fetch_one(connection, BILLED, {"job_id": job_id, "id": invoice.id, "account_id": invoice.account_id})
    if row is None:
        raise NotFound(f"Job '{job_id}' is not on this invoice.")
    return Decimal(row["billed_amount"])


# What its payments can still give back.
REFUNDABLE = """
SELECT id, amount - refunded AS amount FROM payments
WHERE invoice_id = %(id)s AND account_id = %(account_id)s AND state = 'succeeded'
ORDER BY id FOR NO KEY UPDATE
"""


def lock_refundable(connection: Connection, invoice_id: str, account_id: str) -> list[tuple[str, Decimal]]:
    """Lock the payments of an invoice, and return by id what each can still refund. Call it before other locks."""
    rows = fetch_all(connection, REFUNDABLE, {"id": invoice_id, "account_id": account_id})
    return [(row["id"], row["amount"]) for row in rows]

"""The seller, and the numbers of invoices and credit notes, which have no gaps.

The seller's row is locked from a number's allocation to the end of its transaction. A transaction that is rolled back
gives its number back. So a number is allocated last, in a transaction that does nothing slow afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.platform.database import Connection, fetch_one
from models.platform.records import columns

#: The only seller of an installation.
SELLER = "default"


@dataclass(frozen=True, slots=True)
class Seller:
    """A row of `sellers`.

    payment_days  days after which a finalised invoice is due
    retry_days    days after a failed payment on which it is tried again
    """

    id: str
    name: str
    address: str
    email: str
    tax_id: str
    note: str
    default_currency: str
    invoice_prefix: str
    last_invoice: int
    credit_note_prefix: str
    last_credit_note: int
    payment_days: int
    retry_days: Sequence[int]


COLUMNS = columns(Seller)

READ = f"SELECT {COLUMNS} FROM sellers WHERE id = 'default'"


def read_seller(connection: Connection) -> Seller:
    """Return the seller."""
    row = fetch_one(connection, READ)
    assert row is not None  # of the migration
    return Seller(**row)


UPDATE = f"""
UPDATE sellers
SET name = coalesce(%(name)s, name), address = coalesce(%(address)s, address), email = coalesce(%(email)s, email),
    tax_id = coalesce(%(tax_id)s, tax_id), note = coalesce(%(note)s, note),
    default_currency = coalesce(%(default_currency)s, default_currency),
    invoice_prefix = coalesce(%(invoice_prefix)s, invoice_prefix),
    credit_note_prefix = coalesce(%(credit_note_prefix)s, credit_note_prefix),
    payment_days = coalesce(%(payment_days)s, payment_days),
    retry_days = coalesce(%(retry_days)s::integer[], retry_days)
WHERE id = 'default' RETURNING {COLUMNS}
"""


def update_seller(connection: Connection, changes: Mapping[str, Any]) -> Seller:
    """Change the seller; None and missing names leave a field as it is. A new prefix applies to later numbers."""
    names = ("name", "address", "email", "tax_id", "note", "default_currency", "invoice_prefix", "credit_note_prefix")
    row = fetch_one(connection, UPDATE, {name: changes.get(name) for name in (*names, "payment_days", "retry_days")})
    assert row is not None
    return Seller(**row)


NEXT_INVOICE = """
UPDATE sellers SET last_invoice = last_invoice + 1 WHERE id = 'default'
RETURNING invoice_prefix AS prefix, last_invoice AS number
"""

NEXT_CREDIT_NOTE = """
UPDATE sellers SET last_credit_note = last_credit_note + 1 WHERE id = 'default'
RETURNING credit_note_prefix AS prefix, last_credit_note AS number
"""


def next_invoice_number(connection: Connection) -> str:
    """Allocate the number of an invoice. Locks the seller until the transaction ends."""
    return _next(connection, NEXT_INVOICE)


def next_credit_note_number(connection: Connection) -> str:
    """Allocate the number of a credit note. Locks the seller until the transaction ends."""
    return _next(connection, NEXT_CREDIT_NOTE)


def _next(connection: Connection, statement: str) -> str:
    row = fetch_one(connection, statement)
    assert row is not None
    return f"{row['prefix']}{row['number']:06d}"

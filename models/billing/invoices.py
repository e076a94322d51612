"""Invoices and their lines.

    draft ──finalise──► open ──► paid
                          ├────► void            nothing of it is owed; its usage is on no invoice again
                          └────► uncollectible   nobody expects the payment any more

Once an invoice is open, only its state and the amounts paid, credited and returned change. A transaction that changes
an invoice locks the account's billing details first (`billing_details.lock`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.billing import billing_details, credits, postings
from models.billing.currencies import ZERO, format_amount
from models.billing.numbering import SELLER, Seller
from models.billing.postings import leg, reversed_legs
from models.delivery import events
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import NotFound
from models.platform.ids import new_id
from models.platform.records import columns

InvoiceState = Literal["draft", "open", "paid", "void", "uncollectible"]
Reason = Literal["subscription", "renewal", "change", "usage", "top_up"]


@dataclass(frozen=True, slots=True)
class Invoice:
    """A row of `invoices`. `returned` is what was paid and then refunded or made a credit."""

    id: str
    account_id: str
    seller_id: str
    subscription_id: str | None
    number: str | None
    state: InvoiceState
    reason: Reason
    currency: str
    period_start: datetime | None
    period_end: datetime | None
    subtotal: Decimal
    tax: Decimal
    total: Decimal
    paid: Decimal
    credited: Decimal
    returned: Decimal
    parties: Mapping[str, Any] | None
    tries: int
    created_at: datetime
    finalised_at: datetime | None
    due_at: datetime | None
    paid_at: datetime | None
    voided_at: datetime | None

    @property
    def balance(self) -> Decimal:
        """What the customer owes for it by the ledger: negative where more was paid than is returned yet."""
        return self.total - self.paid - self.credited + self.returned

    @property
    def amount_due(self) -> Decimal:
        """What is to be paid."""
        return max(self.balance, ZERO) if self.state == "open" else ZERO


COLUMNS = columns(Invoice)

READ = f"SELECT {COLUMNS} FROM invoices WHERE id = %(id)s AND account_id = %(account_id)s"

LOCK = f"{READ} FOR UPDATE"


def read(connection: Connection, invoice_id: str, account_id: str) -> Invoice:
    """Return an invoice of the account. Raises NotFound."""
    return _one(connection, READ, invoice_id, account_id)


def lock(connection: Connection, invoice_id: str, account_id: str) -> Invoice:
    """Return an invoice of the account and lock it until the transaction ends. Raises NotFound."""
    return _one(connection, LOCK, invoice_id, account_id)


def lock_if_any(connection: Connection, invoice_id: str, account_id: str) -> Invoice | None:
    """Like `lock`, for a draft that may have been deleted: None then."""
    row = fetch_one(connection, LOCK, {"id": invoice_id, "account_id": account_id})
    return Invoice(**row) if row else None


def _one(connection: Connection, statement: str, invoice_id: str, account_id: str) -> Invoice:
    row = fetch_one(connection, statement, {"id": invoice_id, "account_id": account_id})
    if row is None:
        raise NotFound(f"Invoice with id '{invoice_id}' not found.", param="invoice_id")
    return Invoice(**row)


READ_ANY = f"SELECT {COLUMNS} FROM invoices WHERE id = %(id)s"


def read_any(connection: Connection, invoice_id: str) -> Invoice:
    """Return an invoice of any account, for operators. Raises NotFound."""
    row = fetch_one(connection, READ_ANY, {"id": invoice_id})
    if row is None:
        raise NotFound(f"Invoice with id '{invoice_id}' not found.", param="invoice_id")
    return Invoice(**row)


LIST = f"""
SELECT {COLUMNS} FROM invoices
WHERE account_id = %(account_id)s AND (%(after)s::text IS NULL OR id < %(after)s)
  AND (%(state)s::text IS NULL OR state = %(state)s)
ORDER BY id DESC LIMIT %(limit)s
"""


def list_invoices(
    connection: Connection, account_id: str, *, state: str | None = None, after: str | None = None, limit: int = 20
) -> list[Invoice]:
    """Return at most `limit` invoices of the account, newest first, older than the invoice `after`."""
    parameters = {"account_id": account_id, "state": state, "after": after, "limit": limit}
    return [Invoice(**row) for row in fetch_all(connection, LIST, parameters)]


OF_SUBSCRIPTION = f"""
SELECT {COLUMNS} FROM invoices WHERE account_id = %(account_id)s AND subscription_id = %(id)s ORDER BY id DESC
"""


def of_subscription(connection: Connection, subscription_id: str, account_id: str) -> list[Invoice]:
    """Return the invoices of a subscription, newest first."""
    parameters = {"account_id": account_id, "id": subscription_id}
    return [Invoice(**row) for row in fetch_all(connection, OF_SUBSCRIPTION, parameters)]


COUNT_TRY = """
UPDATE invoices SET tries = %(number)s
WHERE id = %(id)s AND account_id = %(account_id)s AND state = 'open' AND tries < %(number)s
RETURNING id
"""


def count_try(connection: Connection, invoice: Invoice, number: int) -> bool:
    """Count that the payment is tried again. Returns False if this try was counted before."""
    parameters = {"id": invoice.id, "account_id": invoice.account_id, "number": number}
    return fetch_one(connection, COUNT_TRY, parameters) is not None


INSERT_DRAFT = f"""
INSERT INTO invoices (id, account_id, seller_id, subscription_id, state, reason, currency, period_start, period_end)
VALUES (%(id)s, %(account_id)s, %(seller_id)s, %(subscription_id)s, 'draft', %(reason)s, %(currency)s, %(start)s,
        %(end)s)
ON CONFLICT (account_id, period_end) WHERE reason = 'usage' AND state <> 'void' DO NOTHING
RETURNING {COLUMNS}
"""


def insert_draft(
    connection: Connection,
    account_id: str,
    *,
    reason: Reason,
    currency: str,
    subscription_id: str | None,
    period: tuple[datetime, datetime] | None,
    invoice_id: str | None = None,
) -> Invoice | None:
    """Insert a draft. Returns None if the account's usage of this month has an invoice already."""
    start, end = period or (None, None)
    parameters = {
        "id": invoice_id or new_id("inv"),
        "account_id": account_id,
        "seller_id": SELLER,
        "subscription_id": subscription_id,
        "reason": reason,
        "currency": currency,
        "start": start,
        "end": end,
    }
    row = fetch_one(connection, INSERT_DRAFT, parameters)
    return Invoice(**row) if row else None


@dataclass(frozen=True, slots=True)
class Totals:
    """What a finalised invoice amounts to; `paid` from credits, `returned` as a credit if `total` is negative."""

    subtotal: Decimal
    tax: Decimal
    total: Decimal
    paid: Decimal
    returned: Decimal

    @property
    def due(self) -> Decimal:
        """What is left to be paid."""
        return self.total - self.paid + self.returned


FINALISE = f"""
UPDATE invoices
SET state = CASE WHEN %(due)s > 0 THEN 'open' ELSE 'paid' END, number = %(number)s, subtotal = %(subtotal)s,
    tax = %(tax)s, total = %(total)s, paid = %(paid)s, returned = %(returned)s, parties = %(parties)s,
    finalised_at = now(), due_at = now() + make_interval(days => %(payment_days)s),
    paid_at = CASE WHEN %(due)s > 0 THEN NULL ELSE now() END
WHERE id = %(id)s AND state = 'draft' RETURNING {COLUMNS}
"""


def set_finalised(
    connection: Connection, invoice: Invoice, totals: Totals, seller: Seller, number: str, parties: Mapping[str, Any]
) -> Invoice:
    """Give a draft its number and totals: it is open, or paid if nothing is due."""
    parameters = {
        "id": invoice.id,
        "number": number,
        "subtotal": totals.subtotal,
        "tax": totals.tax,
        "total": totals.total,
        "paid": totals.paid,
        "returned": totals.returned,
        "due": totals.due,
        "parties": Jsonb(dict(parties)),
        "payment_days": seller.payment_days,
    }
    row = fetch_one(connection, FINALISE, parameters)
    assert row is not None  # it is locked and a draft
    finalised = Invoice(**row)
    record_event(connection, finalised, "invoice.finalized")
    if finalised.state == "paid":
        record_event(connection, finalised, "invoice.paid")
    return finalised


def record_event(connection: Connection, invoice: Invoice, type: Literal["invoice.finalized", "invoice.paid"]) -> None:
    """Record an event of an invoice."""
    total = format_amount(invoice.total, invoice.currency)
    data = {"id": invoice.id, "number": invoice.number, "total": total, "currency": invoice.currency}
    events.record(connection, invoice.account_id, type, data)


DELETE_DRAFT = "DELETE FROM invoices WHERE id = %(id)s AND account_id = %(account_id)s AND state = 'draft'"


def delete_draft(connection: Connection, invoice: Invoice) -> None:
    """Delete a draft that has nothing to invoice."""
    connection.execute(DELETE_DRAFT, {"id": invoice.id, "account_id": invoice.account_id})


OWNER = "SELECT account_id FROM invoices WHERE id = %(id)s"

APPLY = f"""
UPDATE invoices
SET paid = paid + %(amount)s, returned = returned + %(surplus)s,
    state = CASE WHEN total - paid - credited + returned > %(amount)s - %(surplus)s THEN 'open' ELSE 'paid' END,
    paid_at = CASE WHEN total - paid - credited + returned > %(amount)s - %(surplus)s THEN paid_at ELSE now() END
WHERE id = %(id)s RETURNING {COLUMNS}
"""

SURPLUS_OF_VOID = f"""
UPDATE invoices SET paid = paid + %(amount)s, returned = returned + %(amount)s WHERE id = %(id)s RETURNING {COLUMNS}
"""


def apply_payment(connection: Connection, invoice_id: str, amount: Decimal) -> Invoice:
    """Count a payment that has been posted. The invoice is paid once nothing is due; a top-up becomes a grant then.

    What is more than due, such as a payment of a void invoice, becomes a credit. The account may be erased.
    """
    owner = fetch_one(connection, OWNER, {"id": invoice_id})
    if owner is None:
        raise NotFound("There is no such invoice.")
    billing_details.lock_if_any(connection, owner["account_id"])
    invoice = lock(connection, invoice_id, owner["account_id"])
    if invoice.state == "uncollectible":
        _take_back_write_off(connection, invoice)
    due = max(invoice.balance, ZERO) if invoice.state != "void" else ZERO
    surplus = max(amount - due, ZERO)
    parameters = {"id": invoice.id, "amount": amount, "surplus": surplus}
    row = fetch_one(connection, SURPLUS_OF_VOID if invoice.state == "void" else APPLY, parameters)
    assert row is not None
    if surplus:
        _grant_surplus(connection, invoice, surplus)
    applied = Invoice(**row)
    if applied.state == "paid" and invoice.state != "paid":
        record_event(connection, applied, "invoice.paid")
        if invoice.reason == "top_up":
            _grant_top_up(connection, applied)
    return applied


def _take_back_write_off(connection: Connection, invoice: Invoice) -> None:
    legs = reversed_legs(leg("bad_debt", "receivable", invoice.balance))
    reference = f"{invoice.id}:{invoice.balance}:recovered"
    postings.post(connection, invoice.account_id, "write_off", reference, legs, currency=invoice.currency)


def _grant_surplus(connection: Connection, invoice: Invoice, surplus: Decimal) -> None:
    reason = f"Overpayment of {invoice.number}"
    grant = credits.insert(connection, invoice, surplus, reason=reason, priority=credits.BOUGHT_PRIORITY)
    legs = leg("receivable", "credits", surplus)
    postings.post(connection, invoice.account_id, "grant", grant.id, legs, currency=invoice.currency)


def _grant_top_up(connection: Connection, invoice: Invoice) -> None:
    """Insert the grant of a paid top-up. Its invoice has posted it."""
    credits.insert(
        connection,
        invoice,
        invoice.subtotal,
        reason=f"Top-up {invoice.number}",
        priority=credits.BOUGHT_PRIORITY,
        invoice_id=invoice.id,
    )

"""Prepaid credits: grants, and what invoices drew from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from models.billing.currencies import ZERO
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.ids import new_id
from models.platform.records import columns


class Payer(Protocol):
    """What names an account and its currency: its billing details, or an invoice, which outlives them."""

    @property
    def account_id(self) -> str:
        """The account."""

    @property
    def currency(self) -> str:
        """The currency in which it pays."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A row of `credit_grants`. `invoice_id` is the invoice that the customer paid it with; None if it was given."""

    id: str
    account_id: str
    invoice_id: str | None
    currency: str
    amount: Decimal
    drawn: Decimal
    refunded: Decimal
    priority: int
    reason: str
    expires_at: datetime | None
    created_at: datetime
    expired_at: datetime | None

    @property
    def remaining(self) -> Decimal:
        """What can still be drawn from it."""
        return ZERO if self.expired_at else self.amount - self.drawn - self.refunded


COLUMNS = columns(Grant)

INSERT = f"""
INSERT INTO credit_grants (id, account_id, invoice_id, currency, amount, priority, reason, expires_at)
VALUES (%(id)s, %(account_id)s, %(invoice_id)s, %(currency)s, %(amount)s, %(priority)s, %(reason)s, %(expires_at)s)
RETURNING {COLUMNS}
"""

#: Grants of a lower priority are drawn first. Of what was given, and of what the customer has paid.
GIVEN_PRIORITY = 50
BOUGHT_PRIORITY = 100


def insert(
    connection: Connection,
    payer: Payer,
    amount: Decimal,
    *,
    reason: str,
    priority: int = GIVEN_PRIORITY,
    invoice_id: str | None = None,
    expires_at: datetime | None = None,
    grant_id: str | None = None,
) -> Grant:
    """Insert a grant. The caller posts it, and has locked the account's details, unless they are erased."""
    parameters = {
        "id": grant_id or new_id("grant"),
        "account_id": payer.account_id,
        "invoice_id": invoice_id,
        "currency": payer.currency,
        "amount": amount,
        "priority": priority,
        "reason": reason,
        "expires_at": expires_at,
    }
    row = fetch_one(connection, INSERT, parameters)
    assert row is not None
    return Grant(**row)


# What an invoice draws: by priority, expiry and age, from each grant what is left until the amount is reached.
DRAW = """
WITH locked AS (
    SELECT id, priority, expires_at, amount - drawn - refunded AS remaining FROM credit_grants
    WHERE account_id = %(account_id)s AND currency = %(currency)s AND expired_at IS NULL
      AND drawn + refunded < amount AND (expires_at IS NULL OR expires_at > now())
    ORDER BY id FOR UPDATE
), ordered AS (
    SELECT id, remaining, sum(remaining) OVER (ORDER BY priority, expires_at NULLS LAST, id) - remaining AS before
    FROM locked
), drawn AS (
    UPDATE credit_grants AS grants SET drawn = drawn + least(remaining, %(amount)s - before)
    FROM ordered WHERE grants.id = ordered.id AND before < %(amount)s
    RETURNING grants.id, least(remaining, %(amount)s - before) AS amount
), draws AS (
    INSERT INTO credit_draws (grant_id, invoice_id, amount) SELECT id, %(invoice_id)s, amount FROM drawn
    RETURNING amount
)
SELECT coalesce(sum(amount), 0) AS drawn FROM draws
"""


def draw(connection: Connection, payer: Payer, invoice_id: str, amount: Decimal) -> Decimal:
    """Draw at most `amount` from the account's credits for an invoice. Returns what was drawn. The caller posts it."""
    parameters = {
        "account_id": payer.account_id,
        "currency": payer.currency,
        "invoice_id": invoice_id,
        "amount": amount,
    }
    row = fetch_one(connection, DRAW, parameters)
    assert row is not None
    return Decimal(row["drawn"])


TAKE_BACK = """
UPDATE credit_grants SET refunded = refunded + %(amount)s
WHERE invoice_id = %(invoice_id)s AND account_id = %(account_id)s AND expired_at IS NULL
  AND drawn + refunded + %(amount)s <= amount
RETURNING id
"""


def take_back(connection: Connection, invoice_id: str, account_id: str, amount: Decimal) -> bool:
    """Take a part of a top-up's grant back, to refund it. Returns False if less of it is left."""
    parameters = {"invoice_id": invoice_id, "account_id": account_id, "amount": amount}
    return fetch_one(connection, TAKE_BACK, parameters) is not None


# Grants to expire, of all accounts: each needs a transaction that locks its account's details first.
EXPIRED = """
SELECT id, account_id FROM credit_grants WHERE expires_at <= now() AND expired_at IS NULL
ORDER BY expires_at LIMIT %(limit)s
"""

EXPIRE = f"""
UPDATE credit_grants SET expired_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s AND expires_at <= now() AND expired_at IS NULL
RETURNING {COLUMNS}
"""


def due_to_expire(connection: Connection, limit: int) -> list[tuple[str, str]]:
    """Return (grant id, account id) of at most `limit` grants whose time is over."""
    return [(row["id"], row["account_id"]) for row in fetch_all(connection, EXPIRED, {"limit": limit})]


def expire(connection: Connection, grant_id: str, account_id: str) -> Grant | None:
    """Mark a grant as expired and return it; None if it is not due. The caller posts what was left."""
    row = fetch_one(connection, EXPIRE, {"id": grant_id, "account_id": account_id})
    return Grant(**row) if row else None


BALANCE = """
SELECT coalesce(sum(amount - drawn - refunded), 0) AS balance FROM credit_grants
WHERE account_id = %(account_id)s AND currency = %(currency)s AND expired_at IS NULL
  AND (expires_at IS NULL OR expires_at > now())
"""

# The usage that no invoice has, and that of drafts, which have not been posted yet.
UNBILLED = """
SELECT (SELECT coalesce(sum(billed_amount), 0) FROM usage_records
        WHERE account_id = %(account_id)s AND billed_amount IS NOT NULL AND billed_on IS NULL
          AND billed_currency = %(currency)s)
     + (SELECT coalesce(sum(billed_amount), 0) FROM usage_records
        WHERE billed_on IN (SELECT id FROM invoices WHERE account_id = %(account_id)s AND state = 'draft')
          AND billed_currency = %(currency)s) AS unbilled
"""


def balance(connection: Connection, payer: Payer) -> Decimal:
    """Return what can be drawn now."""
    return _sum(connection, BALANCE, payer, "balance")


def unbilled_usage(connection: Connection, payer: Payer) -> Decimal:
    """Return the exact cost of the usage that is on no finalised invoice."""
    return _sum(connection, UNBILLED, payer, "unbilled")


INCLUDED = """
SELECT coalesce(sum(included_amount), 0) AS included
FROM subscriptions JOIN plan_versions USING (plan_id)
WHERE account_id = %(account_id)s AND version = plan_version AND currency = %(currency)s
  AND state IN ('trialing', 'active', 'past_due')
"""


def available(connection: Connection, payer: Payer) -> Decimal:
    """Return what is left of the credits once the usage so far is invoiced. Negative if it costs more.

    The plan's included amount is used before the credits.
    """
    beyond = unbilled_usage(connection, payer) - _sum(connection, INCLUDED, payer, "included")
    return balance(connection, payer) - max(beyond, ZERO)


def _sum(connection: Connection, statement: str, payer: Payer, name: str) -> Decimal:
    row = fetch_one(connection, statement, {"account_id": payer.account_id, "currency": payer.currency})
    assert row is not None
    return Decimal(row[name])


READ = f"SELECT {COLUMNS} FROM credit_grants WHERE id = %(id)s AND account_id = %(account_id)s"


def read(connection: Connection, grant_id: str, account_id: str) -> Grant | None:
    """Return a grant of the account, or None."""
    row = fetch_one(connection, READ, {"id": grant_id, "account_id": account_id})
    return Grant(**row) if row else None


LIST = f"""
SELECT {COLUMNS} FROM credit_grants
WHERE account_id = %(account_id)s AND (%(after)s::text IS NULL OR id < %(after)s) ORDER BY id DESC LIMIT %(limit)s
"""


def list_grants(connection: Connection, account_id: str, *, after: str | None = None, limit: int = 20) -> list[Grant]:
    """Return at most `limit` grants of the account, newest first, older than the grant `after`."""
    parameters: Mapping[str, object] = {"account_id": account_id, "after": after, "limit": limit}
    return [Grant(**row) for row in fetch_all(connection, LIST, parameters)]

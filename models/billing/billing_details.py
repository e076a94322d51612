"""Whom an account's invoices name, in which currency it pays, and how it is taxed.

The row is inserted before the account's first invoice, payment or credit. A transaction that changes invoices or
credits locks it first. All transactions with money lock rows in this order, and leave out what they do not need:

    payments             of an invoice all that it may need, by id (`payments.lock_for_refund`)
    billing_details      of several accounts by id
    subscriptions
    invoices             and then their usage records
    credit_grants        by id
    sellers              from the allocation of a number to the end of the transaction
    accounts             when the limits of a plan begin or end to apply, and when an account is closed

Details that are new are in no other transaction yet: theirs may lock the account at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb

from models.billing.currencies import check_currency
from models.platform.compatibility import oldest_code
from models.platform.database import Connection, fetch_one
from models.platform.errors import InvalidRequest, NotFound, Unavailable
from models.platform.records import columns


@dataclass(frozen=True, slots=True)
class BillingDetails:
    """A row of `billing_details`. `tax_rate` is in percent; without `email` invoices are sent to the owners."""

    account_id: str
    currency: str
    name: str
    address: str
    country: str
    email: str
    tax_id: str
    tax_name: str
    tax_rate: Decimal
    tax_note: str
    auto_top_up: Mapping[str, Any] | None
    gateway_customers: Mapping[str, Any]
    created_at: datetime


COLUMNS = columns(BillingDetails)

#: The first schema version whose workers post usage.
POSTED_SINCE = "0033"

INSERT = f"""
INSERT INTO billing_details AS details (account_id, currency, name)
SELECT accounts.id, coalesce(%(currency)s::text, sellers.default_currency), accounts.name FROM accounts, sellers
WHERE accounts.id = %(account_id)s AND accounts.erased_at IS NULL AND sellers.id = 'default'
ON CONFLICT (account_id) DO NOTHING
RETURNING {columns(BillingDetails, "details")}
"""

SET_BILLED_SINCE = "UPDATE accounts SET billed_since = now() WHERE id = %(account_id)s AND billed_since IS NULL"

READ = f"SELECT {COLUMNS} FROM billing_details WHERE account_id = %(account_id)s"

LOCK = f"{READ} FOR UPDATE"


def ensure(connection: Connection, account_id: str, currency: str | None = None) -> BillingDetails:
    """Return the account's details, inserted with the currency or the seller's default if there are none.

    From then on the account's usage is posted. The currency can be changed until something is posted. Raises
    InvalidRequest for a change after that, or for an unknown code, NotFound for an unknown account, and Unavailable
    for new details while workers of an earlier version may run, which post nothing.
    """
    code = check_currency(currency) if currency else None
    parameters = {"account_id": account_id, "currency": code}
    if row := fetch_one(connection, INSERT, parameters):
        if oldest_code(connection) < POSTED_SINCE:
            raise Unavailable("Accounts can be billed once the upgrade of this server is finalized.", retry_after=60)
        connection.execute(SET_BILLED_SINCE, parameters)
        return BillingDetails(**row)
    details = read(connection, account_id)
    if details is None:
        raise NotFound("There is no such account.")
    return details if code in (None, details.currency) else _change_currency(connection, account_id, code or "")


# Under the row's lock, so that nobody posts in the old currency meanwhile: invoices and grants lock it first.
HAS_MONEY = """
SELECT EXISTS (SELECT FROM postings WHERE account_id = %(account_id)s)
    OR EXISTS (SELECT FROM invoices WHERE account_id = %(account_id)s)
    OR EXISTS (SELECT FROM subscriptions WHERE account_id = %(account_id)s AND state <> 'ended') AS has_money
"""

SET_CURRENCY = f"""
UPDATE billing_details SET currency = %(currency)s WHERE account_id = %(account_id)s RETURNING {COLUMNS}
"""


def _change_currency(connection: Connection, account_id: str, currency: str) -> BillingDetails:
    details = lock(connection, account_id)
    row = fetch_one(connection, HAS_MONEY, {"account_id": account_id})
    if row and row["has_money"]:
        message = f"The account is billed in {details.currency}. Its currency cannot be changed any more."
        raise InvalidRequest(message, param="currency")
    changed = fetch_one(connection, SET_CURRENCY, {"account_id": account_id, "currency": currency})
    assert changed is not None
    return BillingDetails(**changed)


def read(connection: Connection, account_id: str) -> BillingDetails | None:
    """Return the account's details, or None."""
    row = fetch_one(connection, READ, {"account_id": account_id})
    return BillingDetails(**row) if row else None


def lock(connection: Connection, account_id: str) -> BillingDetails:
    """Lock the account's money until the transaction ends. Raises NotFound without details."""
    details = lock_if_any(connection, account_id)
    if details is None:
        raise NotFound("The account has no billing details.")
    return details


def lock_if_any(connection: Connection, account_id: str) -> BillingDetails | None:
    """Like `lock`, for what happens after the erasure of an account, too: None then."""
    row = fetch_one(connection, LOCK, {"account_id": account_id})
    return BillingDetails(**row) if row else None


UPDATE = f"""
UPDATE billing_details
SET name = coalesce(%(name)s, name), address = coalesce(%(address)s, address), country = coalesce(%(country)s, country),
    email = coalesce(%(email)s, email), tax_id = coalesce(%(tax_id)s, tax_id)
WHERE account_id = %(account_id)s RETURNING {COLUMNS}
"""


def update(
    connection: Connection,
    account_id: str,
    *,
    name: str | None = None,
    address: str | None = None,
    country: str | None = None,
    email: str | None = None,
    tax_id: str | None = None,
) -> BillingDetails:
    """Change what the customer may change; None leaves a field as it is. Raises NotFound without details."""
    fields = {"name": name, "address": address, "country": country, "email": email, "tax_id": tax_id}
    return _updated(connection, UPDATE, {"account_id": account_id, **fields})


SET_TAX = f"""
UPDATE billing_details SET tax_name = %(name)s, tax_rate = %(rate)s, tax_note = %(note)s
WHERE account_id = %(account_id)s RETURNING {COLUMNS}
"""


def set_tax(connection: Connection, account_id: str, *, name: str, rate: Decimal, note: str) -> BillingDetails:
    """Set the tax of invoices from now on: its rate in percent, and a note such as that on the reverse charge."""
    return _updated(connection, SET_TAX, {"account_id": account_id, "name": name, "rate": rate, "note": note})


SET_AUTO_TOP_UP = f"""
UPDATE billing_details SET auto_top_up = %(auto_top_up)s WHERE account_id = %(account_id)s RETURNING {COLUMNS}
"""


def set_auto_top_up(connection: Connection, account_id: str, rule: Mapping[str, str] | None) -> BillingDetails:
    """Set the amounts `below`, `amount` and `monthly_limit` of automatic top-ups; None turns them off."""
    stored = Jsonb(dict(rule)) if rule is not None else None
    return _updated(connection, SET_AUTO_TOP_UP, {"account_id": account_id, "auto_top_up": stored})


def _updated(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> BillingDetails:
    row = fetch_one(connection, statement, parameters)
    if row is None:
        raise NotFound("The account has no billing details.")
    return BillingDetails(**row)

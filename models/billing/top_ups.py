"""Automatic top-ups: which accounts have a rule, and what has been topped up."""

from dataclasses import dataclass
from decimal import Decimal

from models.billing.billing_details import BillingDetails
from models.platform.database import Connection, fetch_all, fetch_one

ACCOUNTS = """
SELECT account_id FROM billing_details WHERE auto_top_up IS NOT NULL AND account_id > %(after)s
ORDER BY account_id LIMIT %(limit)s
"""


def accounts_with_rule(connection: Connection, *, after: str, limit: int) -> list[str]:
    """Return accounts, later than `after`, with automatic top-ups."""
    return [row["account_id"] for row in fetch_all(connection, ACCOUNTS, {"after": after, "limit": limit})]


@dataclass(frozen=True, slots=True)
class TopUpState:
    """An account's automatic top-ups.

    this_month  what they amount to in this calendar month (UTC), paid or not
    unpaid      the id of one that is not paid
    retry       it has no payment under way, and was tried a day ago or earlier
    """

    this_month: Decimal
    unpaid: str | None
    retry: bool


STATE = """
WITH automatic AS (
    SELECT invoices.id, state, subtotal, finalised_at FROM invoices JOIN invoice_lines ON invoice_id = invoices.id
    WHERE account_id = %(account_id)s AND reason = 'top_up' AND details ->> 'automatic' = 'true'
      AND state <> 'void' AND (state = 'open' OR finalised_at >= date_trunc('month', now(), 'UTC'))
)
SELECT coalesce(sum(subtotal) FILTER (WHERE finalised_at >= date_trunc('month', now(), 'UTC')), 0) AS this_month,
       max(id) FILTER (WHERE state = 'open') AS unpaid,
       coalesce(bool_and(finalised_at < now() - interval '1 day' AND NOT EXISTS (
           SELECT FROM payments
           WHERE payments.invoice_id = automatic.id AND payments.state IN ('pending', 'requires_action')))
           FILTER (WHERE state = 'open'), false) AS retry
FROM automatic
"""


def read_state(connection: Connection, details: BillingDetails) -> TopUpState:
    """Return the state of an account's automatic top-ups. The caller has locked the account's details."""
    row = fetch_one(connection, STATE, {"account_id": details.account_id})
    assert row is not None
    return TopUpState(**row)

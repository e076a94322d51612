"""Subscriptions of all accounts whose period, or time to pay for the first one, has ended."""

from dataclasses import dataclass
from datetime import datetime

from models.platform.database import Connection, fetch_all


@dataclass(frozen=True, slots=True)
class Due:
    """A subscription whose period, or time to pay for the first one, has ended."""

    id: str
    account_id: str
    period_end: datetime


DUE = """
SELECT id, account_id, period_end FROM subscriptions
WHERE period_end <= now() AND state <> 'ended'
  AND (%(after)s::timestamptz IS NULL OR (period_end, id) > (%(after)s, %(after_id)s))
ORDER BY period_end, id LIMIT %(limit)s
"""


def list_due(connection: Connection, *, after: Due | None = None, limit: int) -> list[Due]:
    """Return subscriptions whose period has ended, the longest ago first."""
    parameters = {"after": after.period_end if after else None, "after_id": after.id if after else None, "limit": limit}
    return [Due(**row) for row in fetch_all(connection, DUE, parameters)]


NEVER_PAID = """
SELECT id, account_id, period_end FROM subscriptions
WHERE state = 'incomplete' AND created_at < now() - (
    SELECT make_interval(days => payment_days) FROM sellers WHERE id = 'default')
  AND NOT EXISTS (SELECT FROM payments JOIN invoices ON invoices.id = invoice_id
                  WHERE invoices.account_id = subscriptions.account_id AND subscription_id = subscriptions.id
                    AND payments.state = 'pending')
ORDER BY created_at LIMIT %(limit)s
"""


def list_never_paid(connection: Connection, limit: int) -> list[Due]:
    """Return subscriptions whose first invoice is due and that no payment is under way for."""
    return [Due(**row) for row in fetch_all(connection, NEVER_PAID, {"limit": limit})]

"""Which spending limits are reached by 80 or 100 percent this month, and were not notified of yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from models.platform.database import Connection, fetch_all, fetch_one

#: Percentages of a limit that are notified of, once a month each.
PERCENTAGES = (80, 100)

#: Admins of an account who are notified, the oldest users.
MAX_ADMINS = 20


@dataclass(frozen=True, slots=True)
class ReachedLimit:
    """A limit that is reached by `percent` in the month that begins on a day; None: this one."""

    account_id: str
    scope: str
    percent: int
    month: date | None = None


# Limits in pages by their key. What unfinished jobs have reserved does not count: it may cost less.
REACHED = """
WITH page AS (
    SELECT account_id, scope, amount,
           CASE WHEN notified_month = date_trunc('month', now() AT TIME ZONE 'UTC')::date THEN notified_percent ELSE 0
           END AS notified
    FROM spending_limits WHERE (account_id, scope) > (%(account_id)s, %(scope)s)
    ORDER BY account_id, scope LIMIT %(limit)s
), spent AS (
    SELECT account_id, scope, amount, notified, coalesce((
               SELECT sum(amount) FROM spending
               WHERE spending.account_id = page.account_id AND spending.scope = page.scope
                 AND month = date_trunc('month', now() AT TIME ZONE 'UTC')::date), 0) AS spent
    FROM page
), reached AS (
    SELECT account_id, scope, notified, CASE WHEN amount > 0 AND spent >= amount THEN 100
                                             WHEN amount > 0 AND spent >= amount * 0.8 THEN 80 ELSE 0 END AS percent
    FROM spent
)
SELECT account_id, scope, CASE WHEN percent > notified THEN percent ELSE 0 END AS percent
FROM reached ORDER BY account_id, scope
"""


def page(connection: Connection, after: tuple[str, str], limit: int) -> Sequence[ReachedLimit]:
    """Return at most `limit` limits beyond a key (account, scope); `percent` is 0 where there is nothing to notify."""
    parameters = {"account_id": after[0], "scope": after[1], "limit": limit}
    return [ReachedLimit(**row) for row in fetch_all(connection, REACHED, parameters)]


# What is reached is computed again: since the page was read, the month may have ended, or the limit may have changed.
MARK = """
WITH reached AS (
    SELECT month.first, amount AS limit_amount, CASE WHEN spent >= amount THEN 100 ELSE 80 END AS percent
    FROM spending_limits
    CROSS JOIN (SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date AS first) AS month
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(spending.amount), 0) AS spent FROM spending
        WHERE spending.account_id = spending_limits.account_id AND spending.scope = spending_limits.scope
          AND spending.month = month.first) AS total
    WHERE account_id = %(account_id)s AND scope = %(scope)s AND amount > 0 AND spent >= amount * 0.8
)
UPDATE spending_limits SET notified_percent = percent, notified_month = first
FROM reached
WHERE account_id = %(account_id)s AND scope = %(scope)s AND amount = limit_amount
  AND (notified_percent < percent OR notified_month IS DISTINCT FROM first)
RETURNING account_id, scope, percent, first AS month
"""


def mark(connection: Connection, account_id: str, scope: str) -> ReachedLimit | None:
    """Mark a limit as notified, in the transaction that enqueues the e-mails.

    Returns what is reached now; None if it was marked before, or is not reached any more.
    """
    row = fetch_one(connection, MARK, {"account_id": account_id, "scope": scope})
    return ReachedLimit(**row) if row else None


ADMINS = """
SELECT user_id FROM memberships WHERE account_id = %(account_id)s AND role IN ('owner', 'admin')
ORDER BY user_id LIMIT %(limit)s
"""


def admins(connection: Connection, account_id: str) -> list[str]:
    """Return the users who are notified."""
    rows = fetch_all(connection, ADMINS, {"account_id": account_id, "limit": MAX_ADMINS})
    return [row["user_id"] for row in rows]


@dataclass(frozen=True, slots=True)
class LimitNotice:
    """What a notification says about a limit. `key_name` is None for the account's own limit."""

    account_name: str
    key_name: str | None
    amount: Decimal
    currency: str


NOTICE = """
SELECT accounts.name AS account_name, api_keys.name AS key_name, amount, currency
FROM spending_limits JOIN accounts ON accounts.id = account_id JOIN billing_details USING (account_id)
LEFT JOIN api_keys ON scope = 'key:' || api_keys.id AND api_keys.account_id = accounts.id
JOIN memberships ON memberships.account_id = accounts.id AND memberships.user_id = %(user_id)s
    AND role IN ('owner', 'admin')
WHERE accounts.id = %(account_id)s AND scope = %(scope)s AND accounts.erased_at IS NULL
"""


def notice(connection: Connection, account_id: str, scope: str, user_id: str) -> LimitNotice | None:
    """Return what to tell a user; None if the limit was removed, or the user is no admin of the account any more."""
    row = fetch_one(connection, NOTICE, {"account_id": account_id, "scope": scope, "user_id": user_id})
    return LimitNotice(**row) if row else None

"""What an account spends in a calendar month (UTC), its limits, and the reservations of unfinished jobs.

Scopes: '' is the account, 'key:ID' an API key, 'agent:NAME' an agent. A job reserves the most that it can cost in the
transaction that inserts it. The reservation ends with the job in every case, so it cannot leak.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns


@dataclass(frozen=True, slots=True)
class SpendingLimit:
    """A row of `spending_limits`."""

    scope: str
    amount: Decimal
    notified_month: date | None
    notified_percent: int


@dataclass(frozen=True, slots=True)
class Spending:
    """What a scope has spent this month, and what unfinished jobs have reserved."""

    spent: Decimal
    reserved: Decimal


LIMITS = f"SELECT {columns(SpendingLimit)} FROM spending_limits WHERE account_id = %(account_id)s ORDER BY scope"


def read_limits(connection: Connection, account_id: str) -> list[SpendingLimit]:
    """Return the account's limits."""
    return [SpendingLimit(**row) for row in fetch_all(connection, LIMITS, {"account_id": account_id})]


SPENDING = """
SELECT coalesce((SELECT sum(amount) FROM spending
                 WHERE account_id = %(account_id)s AND scope = %(scope)s
                   AND month = date_trunc('month', now() AT TIME ZONE 'UTC')::date), 0) AS spent,
       coalesce((SELECT sum(amount) FROM spending_reservations AS reserved JOIN jobs ON jobs.id = reserved.job_id
                 WHERE jobs.account_id = %(account_id)s AND %(scope)s = ANY (reserved.scopes)
                   AND jobs.state IN ('scheduled', 'queued', 'running', 'waiting')), 0) AS reserved
"""


def monthly_spending(connection: Connection, account_id: str, scope: str = "") -> Spending:
    """Return what the scope has spent and reserved this month."""
    row = fetch_one(connection, SPENDING, {"account_id": account_id, "scope": scope})
    assert row is not None
    return Spending(**row)


def scopes_of(key_id: str | None, agent: str | None = None) -> Sequence[str]:
    """Return the scopes that a job's cost counts for."""
    return ["", *([f"agent:{agent}"] if agent else []), *([f"key:{key_id}"] if key_id else [])]

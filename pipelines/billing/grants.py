"""Credits that are given, and the expiry of credits."""

from datetime import datetime
from decimal import Decimal

from models.billing import billing_details, credits, postings
from models.billing.credits import GIVEN_PRIORITY, Grant
from models.billing.currencies import check_amount
from models.billing.postings import leg
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.platform.database import Connection, Database
from models.platform.errors import InvalidRequest
from models.schedules.schedules import database_time

#: Grants that one statement selects to expire.
BATCH = 500


def give(
    connection: Connection,
    account_id: str,
    amount: Decimal,
    *,
    reason: str,
    priority: int = GIVEN_PRIORITY,
    expires_at: datetime | None = None,
    grant_id: str | None = None,
) -> Grant:
    """Give an account a credit in its currency, once for an id.

    Raises InvalidRequest for an amount that the currency does not have, and for an expiry in the past.
    """
    billing_details.ensure(connection, account_id)
    details = billing_details.lock(connection, account_id)
    if grant_id and (earlier := credits.read(connection, grant_id, account_id)):
        return earlier
    amount = check_amount(amount, details.currency)
    if expires_at is not None and expires_at <= database_time(connection):
        raise InvalidRequest("'expires_at' is in the past.", param="expires_at")
    grant = credits.insert(
        connection, details, amount, reason=reason, priority=priority, expires_at=expires_at, grant_id=grant_id
    )
    legs = leg("promotions", "credits", amount)
    postings.post(connection, account_id, "grant", grant.id, legs, currency=details.currency)
    return grant


def run_expiry(attempt: Attempt) -> Ending:
    """The job `credits.expire`: expire all grants whose time is over. Each has a transaction of its own."""
    expired = 0
    while grants := _due(attempt.database):
        for grant_id, account_id in grants:
            attempt.check()
            with attempt.database.transaction() as connection:
                expired += expire(connection, grant_id, account_id)
    return plain_ending(attempt, "completed", result={"expired": expired})


def _due(database: Database) -> list[tuple[str, str]]:
    with database.connection() as connection:
        return credits.due_to_expire(connection, BATCH)


def expire(connection: Connection, grant_id: str, account_id: str) -> bool:
    """Expire a grant, and post what was left: revenue if the customer had paid it. Returns False if it is not due."""
    billing_details.lock_if_any(connection, account_id)
    grant = credits.expire(connection, grant_id, account_id)
    if grant is None:
        return False
    left = grant.amount - grant.drawn - grant.refunded
    legs = leg("credits", "revenue" if grant.invoice_id else "promotions", left)
    postings.post(connection, account_id, "expiry", grant.id, legs, currency=grant.currency)
    return True

"""The job `usage.invoice`: start the invoices of accounts that pay as they go, for the calendar month that ended."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from models.billing import usage_lines
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import enqueue
from models.platform.database import Database
from models.platform.errors import Conflict
from models.schedules.schedules import database_time
from pipelines.billing import invoicing

#: Accounts that one statement selects.
BATCH = 500


def run(attempt: Attempt) -> Ending:
    """Start an invoice of last month's usage for each account that has some, no subscription and no such invoice."""
    with attempt.database.connection() as connection:
        end = month_start(database_time(connection))
    started = 0
    for account_id in _accounts(attempt.database, end):
        attempt.check()
        started += start(attempt.database, account_id, end)
    return plain_ending(attempt, "completed", result={"started": started})


def _accounts(database: Database, end: datetime) -> Iterator[str]:
    last = ""
    while True:
        with database.connection() as connection:
            accounts = usage_lines.accounts_to_invoice(connection, end, after=last, limit=BATCH)
        yield from (account_id for account_id, to_invoice in accounts if to_invoice)
        if len(accounts) < BATCH:
            return
        last, _ = accounts[-1]


def start(database: Database, account_id: str, end: datetime) -> bool:
    """Start the invoice of an account's usage before `end`. Returns False if another process has started it."""
    with suppress(Conflict), database.transaction() as connection:
        _, job = invoicing.start_draft(
            connection,
            account_id,
            reason="usage",
            subscription_id=None,
            period_start=month_start(end - timedelta(days=1)),
            period_end=end,
            lines=[],
        )
        enqueue(connection, job)
        return True
    return False


def month_start(time: datetime) -> datetime:
    """Return the beginning of a time's calendar month in UTC."""
    return time.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)

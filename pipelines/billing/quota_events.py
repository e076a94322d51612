"""Record an event when an account has used 80 and 100 percent of a quota, each once in the quota's period."""

from models.billing import quota_thresholds
from models.billing.quota_thresholds import QuotaUse
from models.delivery import events
from models.jobs.attempt_context import Attempt
from models.platform.database import Connection, Database

#: Accounts that one statement looks at.
BATCH = 1000


def record_reached(attempt: Attempt) -> int:
    """Record the events of all accounts, of each in a transaction of its own. Returns their number."""
    after, recorded = "", 0
    while True:
        attempt.check()
        with attempt.database.connection() as connection:
            accounts = quota_thresholds.page(connection, after, BATCH)
        recorded += sum(
            _record(attempt.database, account.account_id) for account in accounts if account.may_have_reached
        )
        if len(accounts) < BATCH:
            return recorded
        after = accounts[-1].account_id


def _record(database: Database, account_id: str) -> int:
    with database.transaction() as connection:
        reached = quota_thresholds.mark(connection, account_id)
        for use in reached:
            _record_use(connection, account_id, use)
    return len(reached)


def _record_use(connection: Connection, account_id: str, use: QuotaUse) -> None:
    data = {"limit": use.quota, "percent": use.percent, "scope": "", "period_start": use.period.isoformat()}
    events.record(connection, account_id, "quota.threshold", data)

"""The job `spending.notify`: e-mail an account's admins when 80 and 100 percent of a spending limit are spent.

This is an event, too, as is the same of other quotas. A limit is marked in the transaction that enqueues the e-mails
and records the event, so each percentage is notified of once a month, also if an attempt stops at any line.
"""

from models.billing import spending_notices
from models.billing.spending_notices import ReachedLimit
from models.delivery import events
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import enqueue
from models.platform.database import Connection, Database
from pipelines.accounts.email_jobs import EmailTemplate, email_job
from pipelines.billing.quota_events import record_reached

#: Limits that one statement compares with what was spent.
BATCH = 500


def run(attempt: Attempt) -> Ending:
    """Notify of all limits that are reached, each in a transaction of its own."""
    after, notified = ("", ""), 0
    while True:
        attempt.check()
        with attempt.database.connection() as connection:
            limits = spending_notices.page(connection, after, BATCH)
        notified += sum(_notify(attempt.database, limit) for limit in limits if limit.percent)
        if len(limits) < BATCH:
            recorded = record_reached(attempt)
            return plain_ending(attempt, "completed", result={"notified": notified, "quotas": recorded})
        after = (limits[-1].account_id, limits[-1].scope)


def _notify(database: Database, found: ReachedLimit) -> bool:
    with database.transaction() as connection:
        limit = spending_notices.mark(connection, found.account_id, found.scope)
        if limit is None:
            return False
        for user_id in spending_notices.admins(connection, limit.account_id):
            email = email_job(
                EmailTemplate.SPENDING_LIMIT,
                user_id=user_id,
                limited_account=limit.account_id,
                scope=limit.scope,
                percent=str(limit.percent),
            )
            enqueue(connection, email)
        _record(connection, limit)
    return True


def _record(connection: Connection, limit: ReachedLimit) -> None:
    data = {
        "limit": "spending_limit",
        "percent": limit.percent,
        "scope": limit.scope,
        "period_start": limit.month.isoformat() if limit.month else None,
    }
    events.record(connection, limit.account_id, "quota.threshold", data)

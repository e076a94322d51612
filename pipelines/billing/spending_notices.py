"""The job `spending.notify`: e-mail an account's admins when 80 and 100 percent of a spending limit are spent.

A limit is marked in the transaction that enqueues the e-mails, so each percentage is notified of once a month, also if
an attempt stops at any line.
"""

from models.billing import spending_notices
from models.billing.spending_notices import ReachedLimit
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import enqueue
from models.platform.database import Database
from pipelines.accounts.email_jobs import EmailTemplate, email_job

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
            return plain_ending(attempt, "completed", result={"notified": notified})
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
    return True

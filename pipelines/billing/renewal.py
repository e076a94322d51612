"""Jobs `subscriptions.due` and `subscription.renew`: move subscriptions to their next period, each once.

The row's period is the fence: a renewal is one transaction that moves it from the period that has ended, and starts the
invoice. Another attempt finds it moved. After a standstill each missed period is renewed in order.
"""

from collections.abc import Iterator

from models.billing import billing_details, due_subscriptions, subscriptions
from models.billing.due_subscriptions import Due
from models.billing.plan_versions import PlanVersion
from models.billing.subscriptions import Subscription
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import NewJob, enqueue_many
from models.platform.database import Connection, Database
from models.schedules.schedules import database_time
from pipelines.billing.change_plan import close, included_terms, start_draft
from pipelines.billing.subscribe import end_never_paid, fee_line

#: Subscriptions that one statement selects.
BATCH = 500


def run_due(attempt: Attempt) -> Ending:
    """Enqueue the renewal of each subscription whose period has ended, and end those that were never paid."""
    found = 0
    for batch in _due(attempt.database):
        attempt.check()
        with attempt.database.transaction() as connection:
            enqueue_many(connection, [renewal_job(due) for due in batch])
        found += len(batch)
    return plain_ending(attempt, "completed", result={"due": found, "never_paid": _end_never_paid(attempt)})


def _due(database: Database) -> Iterator[list[Due]]:
    last = None
    while True:
        with database.connection() as connection:
            batch = due_subscriptions.list_due(connection, after=last, limit=BATCH)
        if batch:
            yield batch
        if len(batch) < BATCH:
            return
        last = batch[-1]


def renewal_job(due: Due) -> NewJob:
    """Return the job that renews a subscription from the period that has ended. Each period has one."""
    return NewJob(
        "subscription.renew",
        due.account_id,
        {"subscription_id": due.id},
        unique_key=f"subscription.renew {due.id} {int(due.period_end.timestamp())}",
    )


def _end_never_paid(attempt: Attempt) -> int:
    with attempt.database.connection() as connection:
        found = due_subscriptions.list_never_paid(connection, BATCH)
    for due in found:
        attempt.check()
        with attempt.database.transaction() as connection:
            billing_details.lock(connection, due.account_id)
            subscription = subscriptions.lock(connection, due.id, due.account_id)
            if subscription is not None and subscription.state == "incomplete":
                end_never_paid(connection, subscription)
    return len(found)


def run(attempt: Attempt) -> Ending:
    """Renew the subscription of the job for each period that has ended, each in a transaction of its own."""
    job, renewed = attempt.job, 0
    while _renew_once(attempt.database, job.arguments["subscription_id"], job.account_id):
        renewed += 1
        attempt.check()
    return plain_ending(attempt, "completed", result={"renewed": renewed})


def _renew_once(database: Database, subscription_id: str, account_id: str) -> bool:
    with database.transaction() as connection:
        return renew(connection, subscription_id, account_id)


def renew(connection: Connection, subscription_id: str, account_id: str) -> bool:
    """Move a subscription one period on, or end it, if its period has ended. Returns whether it had."""
    if billing_details.read(connection, account_id) is None:  # the account was erased
        return False
    billing_details.lock(connection, account_id)
    subscription = subscriptions.lock(connection, subscription_id, account_id)
    if subscription is None or subscription.state == "ended":
        return False
    if subscription.period_end > database_time(connection):
        return False
    _renew(connection, subscription)
    return True


def _renew(connection: Connection, subscription: Subscription) -> None:
    if subscription.state == "incomplete":
        end_never_paid(connection, subscription)
    elif subscription.cancel_at_period_end:
        close(connection, subscription, "cancelled", subscription.period_end)
    elif subscription.state == "unpaid":
        close(connection, subscription, "unpaid", subscription.period_end)
    else:
        _continue(connection, subscription)


def _continue(connection: Connection, subscription: Subscription) -> None:
    """Move to the next period, and start the invoice of its fee and of the usage of the last one."""
    present = subscriptions.version_of(connection, subscription)
    version = subscriptions.next_version(connection, subscription)
    terms = included_terms(connection, subscription, subscription.period_end)
    moved = _move(connection, subscription, present, version)
    lines = [fee_line(version, (moved.period_start, moved.period_end))] if version.fee else []
    used = subscriptions.has_unbilled_usage(connection, subscription.account_id, subscription.period_end)
    if lines or used:
        start_draft(connection, subscription, "renewal", subscription.period_end, terms, lines)
    if version != present and version.fee <= present.fee and subscription.state in ("trialing", "active"):
        subscriptions.apply_limits(connection, moved)  # those of a higher fee once it is paid


def _move(
    connection: Connection, subscription: Subscription, present: PlanVersion, version: PlanVersion
) -> Subscription:
    """Keep the anchor, unless the trial ends or the length of the periods changes."""
    if subscription.state == "trialing" or version.period != present.period:
        return subscriptions.move(connection, subscription, version, subscription.period_end, 0)
    return subscriptions.move(
        connection, subscription, version, subscription.started_at, subscription.period_number + 1
    )

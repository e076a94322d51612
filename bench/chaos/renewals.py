"""Subscriptions whose renewals are overdue by some periods, for `bench.chaos.charges`."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from models.billing import billing_details, due_subscriptions, payment_methods, periods, plan_versions
from models.billing.plan_versions import AT_PRICE, PlanTerms
from models.jobs.jobs import enqueue_many
from models.platform.database import Connection, Database, fetch_all
from models.platform.ids import new_id
from pipelines.billing import subscribe
from pipelines.billing.renewal import renewal_job
from pipelines.billing.subscribe import NewSubscription

PLAN = "chaos"

TERMS = PlanTerms(
    name="Chaos", limits={}, fee=Decimal("19.00"), currency="EUR", period="month", trial_days=0,
    included_amount=Decimal(0), overage=AT_PRICE, spending_limit=None, models=None, public=True,
)  # fmt: skip

#: Periods that are missed, each of which has to be invoiced and paid once.
MISSED = 3

#: The kinds of jobs of a renewal.
KINDS = ("subscription.renew", "invoice.draft")

AGE = """
UPDATE subscriptions
SET started_at = %(start)s, period_start = %(start)s, period_end = %(end)s, version_since = %(start)s
WHERE id = ANY(%(ids)s)
"""

DUE = "SELECT id, account_id, period_end FROM subscriptions WHERE id = ANY(%(ids)s)"

# Each subscription with its invoices of renewals, and the payments that have arrived for them.
RENEWED = """
SELECT subscriptions.id, subscriptions.state, count(DISTINCT invoices.id) AS renewals,
       count(DISTINCT invoices.period_end) AS periods, count(payments.id) AS paid,
       coalesce(bool_and(invoices.state = 'paid'), false) AS all_paid
FROM subscriptions LEFT JOIN invoices ON invoices.subscription_id = subscriptions.id AND invoices.reason = 'renewal'
LEFT JOIN payments ON payments.invoice_id = invoices.id AND payments.state = 'succeeded'
WHERE subscriptions.id = ANY(%(ids)s) GROUP BY subscriptions.id, subscriptions.state
"""


def subscribe_accounts(database: Database, count: int, cards: Sequence[str]) -> list[str]:
    """Insert accounts that subscribe, each with one of the methods. Returns the ids of the subscriptions."""
    with database.transaction() as connection:
        plan_versions.put(connection, PLAN, TERMS)
    return [_subscribe(database, cards[index % len(cards)]) for index in range(count)]


def _subscribe(database: Database, card: str) -> str:
    account_id, subscription_id = new_id("acct"), new_id("sub")
    with database.transaction() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'renewals')", (account_id,))
        billing_details.ensure(connection, account_id, "EUR")
        payment_methods.add(connection, account_id, gateway="test", gateway_method_id=new_id(card), label=card)
        subscribe.subscribe(connection, "test", NewSubscription(subscription_id, account_id, PLAN))
    return subscription_id


def make_due(database: Database, ids: Sequence[str]) -> None:
    """Move the beginning of subscriptions back by MISSED periods, and enqueue what the timetable does."""
    anchor = periods.period_start(datetime.now(UTC), "month", -MISSED) - timedelta(hours=1)
    start, end = periods.bounds(anchor, "month", 0)
    with database.transaction() as connection:
        connection.execute(AGE, {"start": start, "end": end, "ids": list(ids)})
        due = [due_subscriptions.Due(**row) for row in fetch_all(connection, DUE, {"ids": list(ids)})]
        enqueue_many(connection, [renewal_job(each) for each in due])


def differences(connection: Connection, ids: Sequence[str]) -> Iterator[str]:
    """Yield the subscriptions of which a missed period was not invoiced and paid exactly once."""
    for row in fetch_all(connection, RENEWED, {"ids": list(ids)}):
        counts = (row["renewals"], row["periods"], row["paid"])
        if row["state"] != "active" or not row["all_paid"] or counts != (MISSED, MISSED, MISSED):
            yield f"{row}"

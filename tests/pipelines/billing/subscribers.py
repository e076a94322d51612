"""Plans, and an account that subscribes to them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial

from models.billing import (
    billing_details,
    due_subscriptions,
    invoice_lines,
    invoices,
    payments,
    periods,
    plan_versions,
    subscriptions,
)
from models.billing.plan_versions import AT_PRICE, PlanTerms
from models.jobs.jobs import NewJob
from models.platform.database import fetch_all
from models.platform.ids import new_id
from pipelines.billing import change_plan, charge, draft, dunning, renewal, subscribe
from pipelines.billing.collection import collect
from pipelines.billing.subscribe import NewSubscription

TERMS = PlanTerms(
    name="Pro", limits={"streams": 5}, fee=Decimal("19.00"), currency="EUR", period="month", trial_days=0,
    included_amount=Decimal(0), overage=AT_PRICE, spending_limit=None, models=None, public=True,
)  # fmt: skip

DUE_JOBS = """
SELECT id, kind, arguments FROM jobs
WHERE account_id = %s AND state IN ('queued', 'scheduled') AND run_at <= now() AND NOT blocked AND kind = ANY(%s)
ORDER BY created_at, id LIMIT 1
"""


class Subscriber:
    """An account with a subscription, and the worker of its jobs."""

    def __init__(self, database, gateways, begin, settle, account_id):
        self.database, self.account_id = database, account_id
        self._begin, self._settle = begin, settle
        self.runners = {
            "payment.charge": partial(charge.run, gateways),
            "invoice.draft": partial(draft.run, partial(collect, "test")),
            "invoice.collect": partial(dunning.run_collect, "test"),
            "subscription.renew": renewal.run,
            "subscription.notify": dunning.run_notify,
        }

    def plan(self, **terms):
        """Create a plan. Returns its id."""
        plan_id = new_id("plan").replace("_", "-")
        self.put(plan_id, **terms)
        return plan_id

    def put(self, plan_id, **terms):
        """Change a plan."""
        values = {name: getattr(TERMS, name) for name in PlanTerms.__slots__}
        with self.database.transaction() as connection:
            return plan_versions.put(connection, plan_id, PlanTerms(**values | terms))

    def subscribe(self, plan_id, *, subscription_id=None, method=None):
        """Subscribe, and run what follows from it. Returns the subscription."""
        new = NewSubscription(subscription_id or new_id("sub"), self.account_id, plan_id, payment_method_id=method)
        with self.database.transaction() as connection:
            subscribe.subscribe(connection, "test", new)
        self.work()
        return self.current()

    def change(self, plan_id, when="now"):
        """Change the plan, and run what follows from it."""
        with self.database.transaction() as connection:
            change_plan.change(connection, "test", self.account_id, plan_id, when)
        self.work()
        return self.current()

    def cancel(self, when="period_end"):
        """Cancel the subscription."""
        with self.database.transaction() as connection:
            return change_plan.cancel(connection, self.account_id, when)

    def renew(self):
        """Enqueue what is due, as the timetable does, and run it."""
        with self.database.transaction() as connection:
            rows = due_subscriptions.list_due(connection, limit=500)
            due = [each for each in rows if each.account_id == self.account_id]
        for each in due:
            self.run(renewal.renewal_job(each))
        self.work()
        return self.current()

    def work(self):
        """Run the account's due jobs, and those that follow, until there are none."""
        while True:
            with self.database.connection() as connection:
                rows = fetch_all(connection, DUE_JOBS, (self.account_id, list(self.runners)))
            if not rows:
                return
            self.run(NewJob(rows[0]["kind"], self.account_id, rows[0]["arguments"], id=rows[0]["id"]))

    def run(self, job):
        """Run one attempt of a job to its end."""
        attempt = self._begin(job)
        self._settle(attempt, self.runners[job.kind](attempt))

    def pass_days(self, days):
        """Make the account's planned jobs due that are due within days."""
        statement = "UPDATE jobs SET run_at = run_at - %s WHERE account_id = %s AND state IN ('queued', 'scheduled')"
        with self.database.transaction() as connection:
            connection.execute(statement, (timedelta(days=days), self.account_id))
        self.work()

    def began(self, months, *, more=timedelta(hours=1)):
        """Move the subscription's beginning back, into its first period."""
        anchor = periods.period_start(datetime.now(UTC), "month", -months) - more
        with self.database.transaction() as connection:
            subscription = subscriptions.lock_current(connection, self.account_id)
            version = subscriptions.version_of(connection, subscription)
            start, end = periods.bounds(anchor, version.period, 0)
            connection.execute(
                """UPDATE subscriptions SET started_at = %s, period_start = %s, period_end = %s, version_since = %s,
                          trial_end = CASE WHEN trial_end IS NULL THEN NULL ELSE %s END
                   WHERE id = %s""",
                (start, start, end, start, end, subscription.id),
            )
        return anchor

    def current(self):
        """Return the subscription, which may have ended."""
        with self.database.connection() as connection:
            return subscriptions.latest(connection, self.account_id)

    def invoices(self):
        """Return the account's invoices, oldest first."""
        with self.database.connection() as connection:
            return invoices.list_invoices(connection, self.account_id, limit=100)[::-1]

    def lines(self, invoice):
        """Return the kinds and amounts of an invoice's lines."""
        with self.database.connection() as connection:
            lines = invoice_lines.read_lines(connection, invoice.id, self.account_id)
        return [(line.kind, str(line.amount)) for line in lines]

    def payments(self):
        """Return the states of the account's payments, oldest first."""
        with self.database.connection() as connection:
            return [each.state for each in payments.list_payments(connection, self.account_id, limit=100)][::-1]

    def plan_limits(self):
        """Return the limits that the subscription gives the account."""
        with self.database.connection() as connection:
            return fetch_all(connection, "SELECT plan_limits FROM accounts WHERE id = %s", (self.account_id,))[0][
                "plan_limits"
            ]

    def give_details(self):
        """Insert the billing details, in EUR."""
        with self.database.transaction() as connection:
            billing_details.ensure(connection, self.account_id, "EUR")

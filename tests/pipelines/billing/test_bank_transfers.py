"""Invoices that are paid by bank transfer: what happens when they are due, and once they are paid."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from models.billing import dunning as plan
from models.billing import invoice_states, invoices, payments, settlement
from models.billing.payments import PaymentOutcome
from models.jobs.jobs import enqueue
from models.platform.database import fetch_all
from models.platform.ids import new_id
from pipelines.billing import draft, dunning, subscribe
from pipelines.billing.collection import collect
from pipelines.billing.subscribe import NewSubscription
from tests.pipelines.billing.books import check_books
from tests.pipelines.billing.subscribers import Subscriber

NOTICES = """
SELECT arguments ->> 'event' AS event FROM all_jobs WHERE account_id = %s AND kind = 'subscription.notify' ORDER BY id
"""

MAKE_DUE = "UPDATE invoices SET due_at = now() - interval '1 hour' WHERE account_id = %s AND state = 'open'"


class TransferSubscriber(Subscriber):
    """A subscriber whose renewals are paid by bank transfer. The first invoice was paid otherwise."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.runners["invoice.draft"] = partial(draft.run, partial(collect, "manual"))
        self.runners["invoice.collect"] = partial(dunning.run_collect, "manual")

    def renewed(self, times=1):
        """Subscribe, and renew. Returns the open invoice of the last renewal."""
        self.subscribe(self.plan())
        self.began(times)
        self.renew()
        return self.invoices()[-1]

    def become_due(self):
        """Let the time until the open invoices are due pass."""
        with self.database.transaction() as connection:
            connection.execute(MAKE_DUE, (self.account_id,))
        self.pass_days(14)

    def mark_paid(self):
        """Let the bank transfer arrive."""
        with self.database.transaction() as connection:
            [payment] = payments.list_payments(connection, self.account_id, state="pending")
            outcome = PaymentOutcome("succeeded", None, payment.created_at)
            settlement.settle(connection, payment, outcome)

    def notices(self):
        """Return the events of which the admins are informed."""
        with self.database.connection() as connection:
            return [row["event"] for row in fetch_all(connection, NOTICES, (self.account_id,))]


@pytest.fixture
def subscriber(database, gateways, begin, settle, customer):
    """An account without a subscription."""
    subscriber = TransferSubscriber(database, gateways, begin, settle, customer)
    yield subscriber
    check_books(database, customer)


def test_an_invoice_is_not_overdue_before_it_is_due(subscriber):
    subscriber.renewed()

    subscriber.pass_days(13)

    assert (subscriber.current().state, subscriber.notices()) == ("active", [])


def test_an_invoice_that_is_due_reminds_the_customer_and_is_past_due_with_its_limits(subscriber):
    subscriber.renewed()

    subscriber.become_due()

    assert (subscriber.current().state, subscriber.notices()) == ("past_due", ["payment_failed"])
    assert subscriber.plan_limits() == {"streams": 5}


def test_reminders_follow_the_schedule_of_failed_payments_until_it_is_unpaid(subscriber):
    subscriber.renewed()
    subscriber.become_due()

    for days in (1, 2, 2, 2):
        assert subscriber.current().state == "past_due"
        subscriber.pass_days(days)

    assert subscriber.notices() == ["payment_failed"] * 4 + ["subscription_unpaid"]
    assert (subscriber.current().state, subscriber.plan_limits()) == ("unpaid", None)
    assert subscriber.payments() == ["succeeded", "pending"]


@pytest.mark.parametrize("days", [0, 7])
def test_a_transfer_that_arrives_late_makes_it_active_again(subscriber, days):
    subscriber.renewed()
    subscriber.become_due()
    for _ in range(days):
        subscriber.pass_days(1)

    subscriber.mark_paid()

    assert (subscriber.current().state, subscriber.plan_limits()) == ("active", {"streams": 5})
    reminders = subscriber.notices()
    subscriber.pass_days(30)
    assert (subscriber.current().state, subscriber.notices()) == ("active", reminders)


def test_one_of_two_overdue_invoices_keeps_it_past_due(subscriber):
    subscriber.renewed(times=2)
    subscriber.become_due()

    with subscriber.database.transaction() as connection:
        payment = payments.list_payments(connection, subscriber.account_id, state="pending")[0]
        settlement.settle(connection, payment, PaymentOutcome("succeeded", None, payment.created_at))

    assert [each.state for each in subscriber.invoices()] == ["paid", "open", "paid"]
    assert subscriber.current().state == "past_due"


def test_an_invoice_becomes_overdue_once_for_several_schedulers(subscriber, database):
    # Given an invoice that is due, and several that find it at once
    invoice = subscriber.renewed()
    with database.transaction() as connection:
        connection.execute(MAKE_DUE, (subscriber.account_id,))

    def look(_):
        with database.transaction() as connection:
            following = dunning.collect_again(
                connection, gateway="manual", account_id=invoice.account_id, invoice_id=invoice.id, number=0
            )
            for job in following:
                enqueue(connection, job)

    # When they all look
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(look, range(6)))

    # Then one reminder and one next look are planned
    assert subscriber.notices() == ["payment_failed"]
    assert subscriber.current().state == "past_due"


def test_a_void_invoice_of_a_transfer_is_not_overdue_and_a_late_transfer_becomes_a_credit(subscriber, database):
    invoice = subscriber.renewed()
    with database.transaction() as connection:
        invoice_states.void(connection, invoice.id, subscriber.account_id)

    subscriber.pass_days(30)
    assert (subscriber.current().state, subscriber.notices()) == ("active", [])

    subscriber.mark_paid()
    with database.connection() as connection:
        assert invoices.read(connection, invoice.id, subscriber.account_id).returned == invoice.total


def test_only_an_open_invoice_is_looked_at_when_it_is_due(subscriber):
    subscriber.subscribe(subscriber.plan())

    [paid] = subscriber.invoices()

    assert plan.check_when_due(paid) == []


def test_the_first_invoice_is_reminded_of_once_and_void_when_the_period_ends(subscriber):
    # Given a subscription whose first payment is a bank transfer
    new = NewSubscription(new_id("sub"), subscriber.account_id, subscriber.plan())
    with subscriber.database.transaction() as connection:
        subscribe.subscribe(connection, "manual", new)
    subscriber.work()

    # When it does not arrive
    subscriber.become_due()
    subscriber.pass_days(10)
    assert (subscriber.current().state, subscriber.notices()) == ("incomplete", ["payment_failed"])
    subscriber.began(1)
    subscriber.renew()

    # Then
    assert [each.state for each in subscriber.invoices()] == ["void"]
    assert subscriber.current().end_reason == "never_paid"

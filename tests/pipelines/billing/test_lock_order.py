"""Transactions with money lock rows in one order, so that none of them waits for another in a circle."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.harness.waiting import wait_until
from models.accounts import account_data
from models.billing import billing_details, payments, settlement, subscriptions
from models.platform.errors import NotFound
from models.platform.ids import new_id
from pipelines.billing import subscribe
from pipelines.billing.subscribe import NewSubscription
from tests.pipelines.billing.books import issue_fee, new_customer, pay
from tests.pipelines.billing.subscribers import Subscriber

BLOCKED = "SELECT FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"

MEMBERSHIP = "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'owner')"


@pytest.fixture
def subscriber(database, gateways, begin, settle, customer):
    """An account without a subscription."""
    return Subscriber(database, gateways, begin, settle, customer)


@pytest.fixture
def meanwhile(database):
    """`meanwhile(connection, action)` begins an action in a thread, until it waits for the connection's transaction."""
    with ThreadPoolExecutor(1) as thread:

        def meanwhile(connection, action):
            outcome, pid = thread.submit(action), connection.info.backend_pid
            with database.connection() as watching:
                wait_until(lambda: outcome.done() or watching.execute(BLOCKED, (pid,)).fetchone() is not None)
            assert not outcome.done(), outcome.result()
            return outcome

        yield meanwhile


def close(subscriber):
    """Close the account of a subscriber."""
    with subscriber.database.transaction() as connection:
        return account_data.close_account(connection, subscriber.account_id)


def test_the_closure_of_an_account_waits_for_a_renewal(subscriber, database, meanwhile):
    # Given a renewal that has locked the subscription, and the closure of the account
    subscriber.subscribe(subscriber.plan())
    with database.transaction() as connection:
        billing_details.lock(connection, subscriber.account_id)
        subscription = subscriptions.lock_current(connection, subscriber.account_id)

        # When the renewal changes the account's limits
        outcome = meanwhile(connection, lambda: close(subscriber))
        subscriptions.apply_limits(connection, subscription)

    # Then the closure is next
    assert outcome.result(20) == []
    assert (subscriber.current().end_reason, subscriber.plan_limits()) == ("account_erased", None)


def test_the_deletion_of_a_user_waits_for_a_renewal(database, customer, meanwhile):
    user_id = new_id("user")
    with database.transaction() as connection:
        connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user_id, f"{user_id}@example.com"))
        connection.execute(MEMBERSHIP, (customer, user_id))
    with database.transaction() as connection:
        billing_details.lock(connection, customer)

        def delete():
            with database.transaction() as other:
                return account_data.lock_accounts_of(other, user_id)

        outcome = meanwhile(connection, delete)
        connection.execute("UPDATE accounts SET plan_limits = NULL WHERE id = %s", (customer,))
    assert [each.id for each in outcome.result(20)] == [customer]


def test_a_subscription_that_is_requested_while_the_account_is_closed_is_refused(subscriber, database, meanwhile):
    # Given a request that waits for the closure of its account
    plan = subscriber.plan()
    new = NewSubscription(new_id("sub"), subscriber.account_id, plan)

    def request():
        with database.transaction() as other:
            return subscribe.subscribe(other, "test", new)

    with database.transaction() as connection:
        account_data.close_account(connection, subscriber.account_id)
        # When the account is closed
        outcome = meanwhile(connection, request)

    # Then nothing is subscribed that nobody would end
    with pytest.raises(NotFound):
        outcome.result(20)
    assert (subscriber.current(), subscriber.invoices()) == (None, [])


@pytest.fixture
def paid_twice(database):
    """The payments of an invoice that was paid in two parts, the earlier one first."""
    account_id = new_customer(database)
    invoice = issue_fee(database, account_id)
    for _ in range(2):
        pay(database, account_id, invoice, "5")
    with database.connection() as connection:
        return payments.list_payments(connection, account_id)[::-1]


def test_the_refund_of_a_later_payment_locks_the_earlier_one_first(paid_twice, database, meanwhile):
    # Given a credit note that has locked the earlier payment
    earlier, later = paid_twice

    def refund():
        with database.transaction() as other:
            return payments.lock_for_refund(other, later.id, later.account_id)

    with database.transaction() as connection:
        payments.lock(connection, earlier.id, earlier.account_id)
        # When it locks the later one
        outcome = meanwhile(connection, refund)
        payments.lock(connection, later.id, later.account_id)

    # Then both get through
    assert outcome.result(20).id == later.id


def test_a_late_payment_of_an_erased_account_is_booked(subscriber, add_method, database):
    # Given a payment that waits for its customer, whose account is erased
    subscriber.subscribe(subscriber.plan(), method=add_method("pm_test_action_required"))
    with database.connection() as connection:
        [payment] = payments.list_payments(connection, subscriber.account_id)
    close(subscriber)
    with database.transaction() as connection:
        account_data.erase_batch(connection, "billing_details", subscriber.account_id)

    # When the customer confirms it
    with database.transaction() as connection:
        outcome = payments.PaymentOutcome("succeeded", payment.gateway_payment_id, payment.created_at)
        settlement.settle(connection, payment, outcome)

    # Then it is paid, and the subscription remains ended
    assert [each.state for each in subscriber.invoices()] == ["paid"]
    assert (subscriber.payments(), subscriber.current().end_reason) == (["succeeded"], "account_erased")

"""Requests and jobs of one account that run at the same time."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from threading import Barrier

import pytest

from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.billing import invoice_states, payments, settlement
from models.billing.payments import PaymentOutcome
from models.platform.database import fetch_all
from models.platform.errors import Conflict, NotFound
from pipelines.billing import change_plan, grants, operator_payments, renewal
from tests.pipelines.billing.books import check_books, give, issue_fee, new_customer, pay, read_invoice
from tests.pipelines.billing.subscribers import Subscriber

#: Pairs of transactions that each test starts at the same moment.
ROUNDS = 6


@pytest.fixture
def subscriber(database, gateways, begin, settle, customer):
    """An account without a subscription."""
    subscriber = Subscriber(database, gateways, begin, settle, customer)
    yield subscriber
    check_books(database, customer)


@pytest.fixture
def race(database):
    """`race(first, second)` runs both at the same moment, in transactions of their own; "refused" for a Conflict."""

    def run(action, barrier):
        barrier.wait(10)
        try:
            with database.transaction() as connection:
                return action(connection)
        except (Conflict, NotFound):
            return "refused"

    def race(*actions):
        barrier = Barrier(len(actions))
        with ThreadPoolExecutor(len(actions)) as threads:
            return [each.result(30) for each in [threads.submit(run, action, barrier) for action in actions]]

    return race


def test_a_change_and_a_renewal_at_the_same_time_are_both_charged_once(subscriber, race):
    plan, dearer = subscriber.plan(), subscriber.plan(fee=Decimal("31.00"))
    subscriber.subscribe(plan)
    subscription = subscriber.began(1) and subscriber.current()

    outcomes = race(
        lambda connection: change_plan.change(connection, "test", subscriber.account_id, dearer, "now"),
        lambda connection: renewal.renew(connection, subscription.id, subscriber.account_id),
    )
    subscriber.renew()

    # Then the next period is charged once, whichever came first
    assert subscriber.current().period_end > datetime.now(UTC)
    assert [each.reason for each in subscriber.invoices()].count("renewal") == 1
    assert all(each.total >= 0 for each in subscriber.invoices())
    assert subscriber.current().plan_id == (plan if outcomes[0] == "refused" else dearer)


@pytest.mark.parametrize("when", ["now", "period_end"])
def test_a_cancellation_and_a_renewal_at_the_same_time_end_it_or_renew_it(subscriber, race, when):
    subscriber.subscribe(subscriber.plan())
    subscription = subscriber.began(1) and subscriber.current()

    race(
        lambda connection: change_plan.cancel(connection, subscriber.account_id, when),
        lambda connection: renewal.renew(connection, subscription.id, subscriber.account_id),
    )
    subscriber.renew()

    # Then it has ended, or ends with the period that was charged
    current, renewals = subscriber.current(), [each.reason for each in subscriber.invoices()].count("renewal")
    assert current.state == "ended" or current.cancel_at_period_end
    assert renewals <= 1
    assert current.period_end > datetime.now(UTC) if renewals else current.state == "ended"


def test_a_renewal_happens_once_in_several_processes(subscriber, race):
    subscriber.subscribe(subscriber.plan())
    subscription = subscriber.began(1) and subscriber.current()

    renewed = race(*[lambda connection: renewal.renew(connection, subscription.id, subscriber.account_id)] * 6)
    subscriber.work()

    assert sum(renewed) == 1
    assert subscriber.payments() == ["succeeded"] * 2


@pytest.mark.parametrize(("parts", "made"), [((None, None), 1), (("6", "6"), 1), (("4", "6"), 2), ((None, "4"), 1)])
def test_refunds_at_the_same_time_give_back_no_more_than_was_paid(database, parts, made):
    operator = Caller(user_id="user_operator", account_id="platform", role="owner")
    for _ in range(ROUNDS):
        account_id = new_customer(database)
        invoice = pay(database, account_id, issue_fee(database, account_id))
        with database.connection() as connection:
            [payment] = payments.list_payments(connection, account_id)
        barrier = Barrier(2)

        def refund(part, barrier=barrier, payment=payment):
            barrier.wait(10)
            try:
                amount = Decimal(part) if part else None
                operator_payments.refund(database, operator, payment.id, RequestOrigin(), amount=amount, reason="")
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(2) as threads:
            outcomes = list(threads.map(refund, parts))

        assert outcomes.count(True) >= made
        with database.connection() as connection:
            assert payments.read(connection, payment.id, account_id).refunded <= payment.amount
        assert read_invoice(database, invoice).credited <= invoice.total
        check_books(database, account_id)


def test_a_void_and_a_payment_at_the_same_time_lose_no_money(database, race):
    for _ in range(ROUNDS):
        account_id = new_customer(database)
        invoice = issue_fee(database, account_id)
        with database.transaction() as connection:
            payment, _ = payments.new_payment(
                connection, account_id, invoice_id=invoice.id, amount=Decimal(10), currency="EUR", gateway="manual"
            )
        arrived = PaymentOutcome("succeeded", None, datetime.now(UTC))

        outcomes = race(
            lambda connection, a=account_id, i=invoice: invoice_states.void(connection, i.id, a),
            lambda connection, p=payment, o=arrived: settlement.settle(connection, p, o),
        )

        # Then the invoice is paid, or void and the money is a credit
        after = read_invoice(database, invoice)
        assert after.state == ("paid" if outcomes[0] == "refused" else "void")
        assert after.returned == (0 if after.state == "paid" else 10)
        check_books(database, account_id)


def test_an_invoice_draws_a_credit_or_it_expires(database, race):
    for _ in range(ROUNDS):
        account_id = new_customer(database)
        grant = give(database, account_id, "10")
        with database.transaction() as connection:
            connection.execute("UPDATE credit_grants SET expires_at = now() WHERE id = %s", (grant.id,))

        race(
            lambda connection, a=account_id: issue_fee(database, a),
            lambda connection, a=account_id, g=grant: grants.expire(connection, g.id, a),
        )

        with database.connection() as connection:
            rows = fetch_all(connection, "SELECT drawn, expired_at FROM credit_grants WHERE id = %s", (grant.id,))
        assert (rows[0]["drawn"], rows[0]["expired_at"] is None) == (0, False)
        check_books(database, account_id)

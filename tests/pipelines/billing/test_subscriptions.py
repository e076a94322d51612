"""Subscriptions: begin, change, renew, end, and what happens without payment."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from models.accounts import account_data
from models.billing import invoice_states, numbering, periods
from models.billing.due_subscriptions import DUE
from models.jobs.jobs import NewJob
from models.platform.database import fetch_all
from models.platform.errors import Conflict, InvalidRequest, NotAllowed, NotFound
from models.platform.ids import new_id
from pipelines.billing import renewal, subscribe
from pipelines.billing.subscribe import NewSubscription
from tests.pipelines.billing.books import check_books, give, use
from tests.pipelines.billing.subscribers import Subscriber


class Killed(BaseException):
    """The worker was killed."""


@pytest.fixture
def subscriber(database, gateways, begin, settle, customer):
    """An account without a subscription."""
    subscriber = Subscriber(database, gateways, begin, settle, customer)
    yield subscriber
    check_books(database, customer)


def test_a_paid_subscription_is_active_with_the_limits_of_its_plan(subscriber):
    subscription = subscriber.subscribe(subscriber.plan(models=["llama"]))

    assert subscription.state == "active"
    assert (subscription.period_start, subscription.period_end) == periods.bounds(subscription.started_at, "month", 0)
    assert subscriber.plan_limits() == {"streams": 5, "models": ["llama"]}
    assert [(each.state, each.reason, each.total) for each in subscriber.invoices()] == [("paid", "subscription", 19)]
    assert subscriber.payments() == ["succeeded"]


def test_a_declined_payment_leaves_it_incomplete_and_another_subscription_replaces_it(subscriber, add_method):
    plan = subscriber.plan()
    first = subscriber.subscribe(plan, method=add_method("pm_test_declined"))
    assert (first.state, subscriber.plan_limits()) == ("incomplete", None)

    second = subscriber.subscribe(plan, method=add_method("pm_test_visa"))

    assert (second.state, second.id != first.id) == ("active", True)
    assert [each.state for each in subscriber.invoices()] == ["void", "paid"]


def test_a_repeated_request_subscribes_once(subscriber):
    plan = subscriber.plan()
    subscriber.subscribe(plan, subscription_id="sub_repeated")
    subscriber.subscribe(plan, subscription_id="sub_repeated")

    assert subscriber.payments() == ["succeeded"]


def test_a_second_subscription_is_refused(subscriber):
    plan = subscriber.plan()
    subscriber.subscribe(plan)

    with pytest.raises(Conflict) as refused:
        subscriber.subscribe(plan)
    assert refused.value.code == "subscription_exists"


@pytest.mark.parametrize("public", [False, None])
def test_a_plan_that_customers_may_not_have_is_not_found(subscriber, public):
    plan = "plan-of-nobody" if public is None else subscriber.plan(public=False)

    with pytest.raises(NotFound) as unknown:
        subscriber.subscribe(plan)
    assert unknown.value.code == "plan_not_found"


def test_a_plan_in_another_currency_is_refused(subscriber):
    subscriber.subscribe(subscriber.plan())
    subscriber.cancel("now")

    with pytest.raises(InvalidRequest) as refused:
        subscriber.subscribe(subscriber.plan(currency="USD"))
    assert refused.value.param == "currency"


def test_a_free_plan_needs_no_payment(subscriber):
    assert subscriber.subscribe(subscriber.plan(fee=Decimal(0))).state == "active"
    assert (subscriber.invoices(), subscriber.plan_limits()) == ([], {"streams": 5})


def test_credits_pay_the_fee_at_once(subscriber, database):
    give(database, subscriber.account_id, "20")

    assert subscriber.subscribe(subscriber.plan()).state == "active"
    assert subscriber.payments() == []


def test_a_trial_costs_nothing_until_its_end_and_happens_once(subscriber):
    plan = subscriber.plan(trial_days=14)
    trial = subscriber.subscribe(plan)
    assert (trial.state, trial.trial_end - trial.started_at) == ("trialing", timedelta(days=14))
    assert (subscriber.invoices(), subscriber.plan_limits()) == ([], {"streams": 5})

    # When the trial ends
    subscriber.began(1)
    active = subscriber.renew()

    # Then the first paid period begins at its end
    assert (active.state, active.started_at, active.period_number) == ("active", active.trial_end, 0)
    assert subscriber.payments() == ["succeeded"]

    # And another subscription has no trial
    subscriber.cancel("now")
    assert subscriber.subscribe(plan).state == "active"


@pytest.mark.parametrize("terms", [{"trial_days": 14}, {"fee": Decimal(0)}])
def test_an_unverified_account_cannot_leave_its_limits_without_paying(subscriber, database, terms):
    with database.connection() as connection:
        connection.execute("UPDATE accounts SET plan_id = 'unverified' WHERE id = %s", (subscriber.account_id,))

    with pytest.raises(NotAllowed) as error:
        subscriber.subscribe(subscriber.plan(**terms))

    assert error.value.code == "email_unverified"
    assert subscriber.subscribe(subscriber.plan()).state == "active"


def test_an_upgrade_costs_the_difference_and_its_limits_apply_once_it_is_paid(subscriber, database):
    # Given half of a period of a plan
    subscriber.subscribe(subscriber.plan(fee=Decimal(10)))
    large = subscriber.plan(fee=Decimal(100), limits={"streams": 50})
    set_half(database, subscriber)

    changed = subscriber.change(large)

    assert (changed.plan_id, subscriber.plan_limits()) == (large, {"streams": 50})
    invoice = subscriber.invoices()[-1]
    assert (invoice.reason, invoice.state, subscriber.lines(invoice)) == (
        "change", "paid", [("proration", "-5.00"), ("proration", "50.00")]
    )  # fmt: skip


def test_an_upgrade_that_is_not_paid_gives_no_limits_and_no_credit(subscriber, add_method, database):
    subscriber.subscribe(subscriber.plan(fee=Decimal(10)))
    small = subscriber.current().plan_id
    large = subscriber.plan(fee=Decimal(100), limits={"streams": 50})
    add_method("pm_test_declined")  # the default from now on
    set_half(database, subscriber)

    assert subscriber.change(large).state == "past_due"
    assert subscriber.plan_limits() == {"streams": 5}
    for plan in (small, large):
        with pytest.raises(Conflict):
            subscriber.change(plan if plan == small else subscriber.plan())


def test_a_downgrade_becomes_a_credit(subscriber, database):
    subscriber.subscribe(subscriber.plan(fee=Decimal(100)))
    set_half(database, subscriber)

    subscriber.change(subscriber.plan(fee=Decimal(10), limits={"streams": 1}))

    assert subscriber.plan_limits() == {"streams": 1}
    assert subscriber.invoices()[-1].total == -45
    assert subscriber.payments() == ["succeeded"]


def test_a_change_at_the_end_of_the_period_can_be_taken_back(subscriber):
    plan = subscriber.plan()
    subscriber.subscribe(plan)
    other = subscriber.plan(fee=Decimal(5))

    assert subscriber.change(other, "period_end").next_plan_id == other
    assert subscriber.change(plan).next_plan_id is None
    subscriber.change(other, "period_end")
    subscriber.began(1)

    assert (subscriber.renew().plan_id, subscriber.current().next_plan_id) == (other, None)
    assert subscriber.invoices()[-1].total == 5


def test_a_longer_period_begins_at_once(subscriber, database):
    subscriber.subscribe(subscriber.plan(fee=Decimal(10)))
    set_half(database, subscriber)

    changed = subscriber.change(subscriber.plan(fee=Decimal(100), period="year"))

    assert (changed.period_start, changed.period_end) == periods.bounds(changed.started_at, "year", 0)
    assert subscriber.lines(subscriber.invoices()[-1]) == [("proration", "-5.00"), ("fee", "100.00")]


def test_included_usage_is_that_of_each_plan_for_its_time(subscriber, database):
    # Given a change at the middle of the period from a plan that includes 10 to one that includes 30
    subscriber.subscribe(subscriber.plan(fee=Decimal(10), included_amount=Decimal(10)))
    set_half(database, subscriber)
    subscriber.change(subscriber.plan(fee=Decimal(10), included_amount=Decimal(30)))
    end = set_due(database, subscriber)
    use(database, subscriber.account_id, ["25"], at=end - timedelta(hours=2))

    subscriber.renew()

    kinds = dict(subscriber.lines(subscriber.invoices()[-1]))
    assert kinds == {"fee": "10.00", "usage": "25.00", "included": "-20.00"}


def test_a_version_is_kept_until_the_subscription_is_moved(subscriber):
    plan = subscriber.plan()
    subscriber.subscribe(plan)
    assert subscriber.put(plan).version == 1
    assert subscriber.put(plan, fee=Decimal(99)).version == 2
    subscriber.began(1)

    subscriber.renew()

    assert subscriber.current().plan_version == 1
    assert [each.total for each in subscriber.invoices()] == [19, 19]
    assert subscriber.change(plan, "period_end").next_plan_version == 2


def test_missed_periods_are_renewed_in_order_and_once(subscriber):
    subscriber.subscribe(subscriber.plan())
    anchor = subscriber.began(3)

    subscriber.renew()
    subscriber.renew()

    renewed = subscriber.current()
    assert (renewed.period_number, renewed.period_start) == (3, periods.period_start(anchor, "month", 3))
    ends = [each.period_end for each in subscriber.invoices()[1:]]
    assert ends == [periods.period_start(anchor, "month", number) for number in (1, 2, 3)]
    assert subscriber.payments() == ["succeeded"] * 4


def test_a_kill_between_any_two_statements_of_a_renewal_renews_once(subscriber, database, monkeypatch):
    subscriber.subscribe(subscriber.plan())
    subscriber.began(2)
    execute, number = psycopg.Connection.execute, 0

    # When the worker is killed before each statement of the renewal in turn, and tries again
    while True:
        number += 1
        left = [number]

        def mortal(connection, *arguments, left=left, **options):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return execute(connection, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(psycopg.Connection, "execute", mortal)
            try:
                while renewal._renew_once(database, subscriber.current().id, subscriber.account_id):
                    pass
            except Killed:
                continue
        if left[0] > 0:
            break
    subscriber.work()

    # Then each period has one invoice and one payment
    assert number > 10
    assert subscriber.current().period_number == 2
    assert [each.state for each in subscriber.invoices()] == ["paid"] * 3
    assert subscriber.payments() == ["succeeded"] * 3


def test_a_free_plan_is_renewed_without_invoices(subscriber):
    subscriber.subscribe(subscriber.plan(fee=Decimal(0)))
    subscriber.began(1)

    assert (subscriber.renew().period_number, subscriber.invoices()) == (1, [])


def test_a_cancelled_subscription_ends_with_its_period_unless_it_is_resumed(subscriber, database):
    subscriber.subscribe(subscriber.plan())
    assert subscriber.cancel().state == "active"
    end = datetime.now(UTC) - timedelta(hours=1)
    subscriber.began(1)
    use(database, subscriber.account_id, ["2.50"], at=end - timedelta(days=1))

    ended = subscriber.renew()

    assert (ended.state, ended.end_reason, subscriber.plan_limits()) == ("ended", "cancelled", None)
    assert subscriber.lines(subscriber.invoices()[-1]) == [("usage", "2.50")]


def test_a_failed_renewal_is_tried_on_four_days_and_then_unpaid(subscriber, add_method):
    # Given a renewal with a card that is declined
    subscriber.subscribe(subscriber.plan())
    add_method("pm_test_declined")
    subscriber.began(1)

    assert subscriber.renew().state == "past_due"
    assert subscriber.plan_limits() == {"streams": 5}
    for failed, days in enumerate((1, 2, 2), start=2):
        subscriber.pass_days(days)
        assert (subscriber.current().state, subscriber.payments().count("failed")) == ("past_due", failed)

    # When the last try fails, too
    subscriber.pass_days(2)

    # Then the limits are those of the account's own plan, and nothing else is tried
    assert (subscriber.current().state, subscriber.plan_limits()) == ("unpaid", None)
    subscriber.pass_days(30)
    assert subscriber.payments().count("failed") == 5


def test_a_later_payment_makes_it_active_again(subscriber, add_method):
    subscriber.subscribe(subscriber.plan())
    add_method("pm_test_declined")
    subscriber.began(1)
    subscriber.renew()

    method = add_method("pm_test_visa")
    with subscriber.database.transaction() as connection:
        connection.execute("UPDATE payment_methods SET is_default = false WHERE account_id = %s", (method,))
        connection.execute(
            "UPDATE payment_methods SET is_default = (id = %s) WHERE account_id = %s AND (is_default OR id = %s)",
            (method, subscriber.account_id, method),
        )
    subscriber.pass_days(1)

    assert (subscriber.current().state, subscriber.plan_limits()) == ("active", {"streams": 5})
    assert [each.state for each in subscriber.invoices()] == ["paid", "paid"]


def test_an_unpaid_subscription_ends_with_its_period(subscriber, database):
    subscriber.subscribe(subscriber.plan())
    with database.transaction() as connection:
        connection.execute("UPDATE subscriptions SET state = 'unpaid' WHERE account_id = %s", (subscriber.account_id,))
    subscriber.began(1)

    assert (subscriber.renew().end_reason, len(subscriber.invoices())) == ("unpaid", 1)


def test_cancelling_before_the_first_payment_voids_the_invoice(subscriber, add_method):
    subscription = subscriber.subscribe(subscriber.plan(), method=add_method("pm_test_declined"))
    subscriber.cancel("now")

    assert subscriber.current().end_reason == "never_paid"
    assert [each.state for each in subscriber.invoices()] == ["void"]
    assert subscription.state == "incomplete"


def test_a_retry_of_a_void_invoice_activates_the_subscription(subscriber, add_method, database):
    subscriber.subscribe(subscriber.plan())
    add_method("pm_test_declined")
    subscriber.began(1)
    subscriber.renew()
    with database.transaction() as connection:
        invoice_states.void(connection, subscriber.invoices()[-1].id, subscriber.account_id)

    subscriber.pass_days(1)

    assert subscriber.current().state == "active"


def test_requests_at_the_same_time_subscribe_once(subscriber):
    plans = [subscriber.plan() for _ in range(2)]

    with ThreadPoolExecutor(8) as threads:
        tries = [threads.submit(attempt, subscriber, plan) for plan in plans * 8]
        outcomes = [each.result() for each in tries]
    subscriber.work()

    # An incomplete subscription is replaced, while its payment is not under way; here it always is
    assert sorted(outcomes)[-1] == "subscribed"
    assert outcomes.count("subscribed") == 1
    assert (subscriber.payments(), subscriber.current().state) == (["succeeded"], "active")


def attempt(subscriber, plan):
    """Try to subscribe, as one of several requests. Returns the outcome."""
    new = NewSubscription(new_id("sub"), subscriber.account_id, plan)
    try:
        with subscriber.database.transaction() as connection:
            subscribe.subscribe(connection, "test", new)
    except Conflict as error:
        return error.code
    return "subscribed"


def test_the_erasure_of_an_account_ends_its_subscription(subscriber, database):
    subscriber.subscribe(subscriber.plan())
    subscriber.began(1)

    with database.transaction() as connection:
        account_data.close_account(connection, subscriber.account_id)

    assert (subscriber.renew().end_reason, subscriber.plan_limits()) == ("account_erased", None)
    assert subscriber.payments() == ["succeeded"]


def test_the_seller_decides_on_which_days_a_payment_is_tried_again(subscriber, add_method, database):
    subscriber.subscribe(subscriber.plan())
    add_method("pm_test_declined")
    subscriber.began(1)
    with database.transaction() as connection:
        before = numbering.read_seller(connection).retry_days
        numbering.update_seller(connection, {"retry_days": [2]})
    try:
        assert subscriber.renew().state == "past_due"
        subscriber.pass_days(1)
        assert subscriber.payments().count("failed") == 1
        subscriber.pass_days(1)
        assert subscriber.current().state == "unpaid"
    finally:
        with database.transaction() as connection:
            numbering.update_seller(connection, {"retry_days": before})


def test_each_period_that_ended_has_one_renewal_however_often_it_is_found(subscriber, database, begin, settle):
    subscriber.subscribe(subscriber.plan())
    subscriber.began(1)

    for _ in range(2):
        attempt = begin(NewJob("subscriptions.due", "platform"))
        settle(attempt, renewal.run_due(attempt))

    with database.connection() as connection:
        statement = "SELECT id FROM jobs WHERE account_id = %s AND kind = 'subscription.renew'"
        assert len(fetch_all(connection, statement, (subscriber.account_id,))) == 1
    subscriber.work()
    assert subscriber.payments() == ["succeeded"] * 2


def test_a_subscription_that_nobody_pays_ends_when_its_invoice_is_due(subscriber, add_method, database, begin, settle):
    subscriber.subscribe(subscriber.plan(), method=add_method("pm_test_declined"))
    with database.transaction() as connection:
        connection.execute(
            "UPDATE subscriptions SET created_at = now() - interval '15 days' WHERE account_id = %s",
            (subscriber.account_id,),
        )

    attempt = begin(NewJob("subscriptions.due", "platform"))
    settle(attempt, renewal.run_due(attempt))

    assert subscriber.current().end_reason == "never_paid"
    assert [each.state for each in subscriber.invoices()] == ["void"]


def test_subscriptions_that_are_due_are_found_by_their_index(database):
    with database.transaction() as connection:
        connection.execute("SET LOCAL enable_seqscan = off")
        plan = fetch_all(connection, f"EXPLAIN {DUE}", {"after": None, "after_id": None, "limit": 500})
    assert "subscriptions_due" in str(plan)


def set_half(database, subscriber):
    """Move the period so that half of it has passed, to the second."""
    with database.transaction() as connection:
        connection.execute(
            """UPDATE subscriptions
               SET period_start = now() - interval '10 days', period_end = now() + interval '10 days',
                   version_since = now() - interval '10 days', started_at = now() - interval '10 days'
               WHERE account_id = %s AND state <> 'ended'""",
            (subscriber.account_id,),
        )


def set_due(database, subscriber):
    """Move the period so that it has just ended. Returns its end."""
    with database.transaction() as connection:
        row = fetch_all(
            connection,
            """UPDATE subscriptions SET period_start = period_start - interval '10 days', period_end = now(),
                      version_since = version_since - interval '10 days', started_at = started_at - interval '10 days'
               WHERE account_id = %s AND state <> 'ended' RETURNING period_end""",
            (subscriber.account_id,),
        )
    return row[0]["period_end"]


def test_what_happens_to_a_subscription_and_its_invoice_are_events(subscriber, events_of):
    # When an account subscribes, and its first payment succeeds
    subscription = subscriber.subscribe(subscriber.plan())
    # Then each change is an event, in order
    (invoice,) = subscriber.invoices()
    about_invoice = {"id": invoice.id, "number": invoice.number, "total": "19.00", "currency": "EUR"}
    about_subscription = {"id": subscription.id, "plan_id": subscription.plan_id}
    recorded = events_of(subscriber.account_id)
    payment_id = recorded[2][1]["id"]
    assert recorded == [
        ("subscription.updated", {**about_subscription, "state": "incomplete"}),
        ("invoice.finalized", about_invoice),
        ("payment.succeeded",
         {"id": payment_id, "invoice_id": invoice.id, "amount": "19.00", "currency": "EUR"}),
        ("invoice.paid", about_invoice),
        ("subscription.updated", {**about_subscription, "state": "active"}),
    ]  # fmt: skip


def test_a_change_of_a_subscription_that_changes_nothing_is_no_event(subscriber, events_of):
    subscriber.subscribe(subscriber.plan())
    subscriber.cancel()
    before = events_of(subscriber.account_id)

    subscriber.cancel()

    assert events_of(subscriber.account_id) == before


def test_an_invoice_that_credits_pay_is_finalised_and_paid(subscriber, database, events_of):
    give(database, subscriber.account_id, "100")

    subscriber.subscribe(subscriber.plan())

    types = [type for type, _ in events_of(subscriber.account_id)]
    assert types == ["subscription.updated", "invoice.finalized", "invoice.paid", "subscription.updated"]

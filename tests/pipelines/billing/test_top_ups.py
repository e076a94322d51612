"""Invoices of usage without a subscription, top-ups, and credits that expire."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from models.billing import billing_details, credits, invoices, payments
from models.jobs.jobs import NewJob
from models.platform.errors import InvalidRequest
from pipelines.billing import auto_top_up, grants, top_up, usage_invoices
from tests.pipelines.billing.books import balance, check_books, give, new_customer, pay, use

THIS_MONTH = usage_invoices.month_start(datetime.now(UTC))


def set_rule(database, account_id, below="5", amount="20", monthly_limit="50"):
    with database.transaction() as connection:
        rule = {"below": below, "amount": amount, "monthly_limit": monthly_limit}
        billing_details.set_auto_top_up(connection, account_id, rule)


def check(database, account_id):
    with database.transaction() as connection:
        return auto_top_up.check(connection, "test", account_id)


def newest(database, account_id):
    with database.connection() as connection:
        return invoices.list_invoices(connection, account_id)[0]


def test_a_top_up_is_charged_and_then_available(database):
    account_id = new_customer(database, "JPY")

    with database.transaction() as connection:
        invoice = top_up.start(connection, account_id, Decimal(500))
    pay(database, account_id, invoice)

    with database.connection() as connection:
        assert credits.available(connection, billing_details.read(connection, account_id)) == 500
    check_books(database, account_id)


@pytest.mark.parametrize("amount", ["0", "-5", "0.5", "1e12", "NaN"])
def test_a_top_up_of_an_odd_amount_is_rejected(database, amount):
    account_id = new_customer(database, "JPY")

    with pytest.raises(InvalidRequest), database.transaction() as connection:
        top_up.start(connection, account_id, Decimal(amount))


def test_credits_that_have_fallen_below_are_topped_up_once(database):
    # Given credits of which usage leaves 4.99
    account_id = new_customer(database)
    set_rule(database, account_id)
    give(database, account_id, "10")
    use(database, account_id, ["5"])
    assert not check(database, account_id)
    use(database, account_id, ["0.01"])

    # When eight processes look at them
    with ThreadPoolExecutor(8) as threads:
        started = list(threads.map(lambda _: check(database, account_id), range(8)))

    # Then one of them tops up
    assert sum(started) == 1
    invoice = newest(database, account_id)
    with database.connection() as connection:
        [payment] = payments.list_payments(connection, account_id)
    assert (payment.amount, payment.invoice_id) == (20, invoice.id)

    # And the next need is another one
    pay(database, account_id, invoice)
    assert not check(database, account_id)
    use(database, account_id, ["20"])
    assert check(database, account_id)
    check_books(database, account_id)


def test_automatic_top_ups_stay_within_the_monthly_limit(database):
    account_id = new_customer(database)
    set_rule(database, account_id, amount="20", monthly_limit="50")

    for _ in range(4):
        if check(database, account_id):
            pay(database, account_id, newest(database, account_id))
        use(database, account_id, ["20"])

    with database.connection() as connection:
        assert credits.balance(connection, billing_details.read(connection, account_id)) == 40


def test_a_failed_top_up_is_tried_again_after_a_day(database):
    # Given a top-up whose payment has failed
    account_id = new_customer(database)
    set_rule(database, account_id)
    assert check(database, account_id)
    failed = newest(database, account_id)
    with database.connection() as connection:
        connection.execute("UPDATE payments SET state = 'failed' WHERE account_id = %s", (account_id,))
    assert not check(database, account_id)

    # When a day has passed
    with database.connection() as connection:
        connection.execute("UPDATE invoices SET finalised_at = now() - interval '25 hours' WHERE id = %s", (failed.id,))

    # Then
    assert check(database, account_id)
    with database.connection() as connection:
        states = [invoice.state for invoice in invoices.list_invoices(connection, account_id)]
    assert states == ["open", "void"]
    check_books(database, account_id)


def test_the_job_tops_up_all_accounts(database, begin, monkeypatch):
    # Given two accounts, one of which has a rule that its currency does not allow
    monkeypatch.setattr(auto_top_up, "BATCH", 1)
    broken, account_id = new_customer(database, "JPY"), new_customer(database)
    set_rule(database, broken, amount="0.5")
    set_rule(database, account_id)

    # When
    auto_top_up.run("test", begin(NewJob("credits.top_up", "platform")))

    # Then
    assert newest(database, account_id).amount_due == 20


def test_what_is_left_of_a_credit_expires_once(database, begin):
    # Given a credit of 10 of which 4 were drawn, and a bought one of 5
    account_id = new_customer(database)
    grant = give(database, account_id, "10")
    with database.transaction() as connection:
        bought = top_up.start(connection, account_id, Decimal(5))
    pay(database, account_id, bought)
    with database.connection() as connection:
        connection.execute("UPDATE credit_grants SET drawn = 4 WHERE id = %s", (grant.id,))
        connection.execute(
            "INSERT INTO credit_draws (grant_id, invoice_id, amount) VALUES (%s, %s, 4)", (grant.id, bought.id)
        )
        connection.execute(
            "INSERT INTO postings (account_id, kind, reference, debit, credit, currency, amount)"
            " VALUES (%s, 'draw', %s, 'credits', 'receivable', 'EUR', 4)",
            (account_id, bought.id),
        )
        connection.execute("UPDATE credit_grants SET expires_at = now() WHERE account_id = %s", (account_id,))

    # When
    for _ in range(2):
        grants.run_expiry(begin(NewJob("credits.expire", "platform")))

    # Then
    with database.connection() as connection:
        assert balance(connection, account_id, "credits") == 0
        assert balance(connection, account_id, "promotions") == 4
        assert balance(connection, account_id, "revenue") == -5


def test_usage_without_a_subscription_is_invoiced_once_a_month(database, begin, monkeypatch):
    # Given usage of last month and of this one
    monkeypatch.setattr(usage_invoices, "BATCH", 1)
    account_id, idle = new_customer(database), new_customer(database)
    use(database, account_id, ["3"], at=THIS_MONTH - timedelta(days=1))
    use(database, account_id, ["4"], at=THIS_MONTH)

    # When
    for _ in range(2):
        usage_invoices.run(begin(NewJob("usage.invoice", "platform")))

    # Then
    with database.connection() as connection:
        [invoice] = invoices.list_invoices(connection, account_id)
        assert invoices.list_invoices(connection, idle) == []
        jobs = connection.execute(
            "SELECT arguments FROM jobs WHERE kind = 'invoice.draft' AND account_id = %s", (account_id,)
        ).fetchall()
    assert (invoice.state, invoice.reason, invoice.period_end) == ("draft", "usage", THIS_MONTH)
    assert [job["arguments"]["invoice_id"] for job in jobs] == [invoice.id]
    assert not usage_invoices.start(database, account_id, THIS_MONTH)

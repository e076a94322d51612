"""Accounts that pay in advance: what they may use, and what reserves it."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from psycopg.types.json import Jsonb

from models.billing import billing_details, prepaid, spending
from models.billing.prepaid import PrepaidAccount
from models.billing.spending import MostTokens, reserve
from models.jobs.jobs import NewJob, enqueue
from models.jobs.usage import TokenUsage, bill
from models.platform.errors import SpendingLimitReached
from models.platform.ids import new_id

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

INSERT_PRICE = """
INSERT INTO prices (id, model, currency, input, cached_input, output, valid_from) VALUES (%s, %s, 'EUR', 1, 1, 1, %s)
"""

INSERT_GRANT = "INSERT INTO credit_grants (id, account_id, currency, amount) VALUES (%s, %s, 'EUR', %s)"

INSERT_PLAN = """
WITH plan AS (INSERT INTO plans (id, name, limits) VALUES (%(id)s, 'a plan', '{}'))
INSERT INTO plan_versions (plan_id, version, name, limits, currency, included_amount, overage)
VALUES (%(id)s, 1, 'a plan', '{}', 'EUR', %(included)s, %(overage)s)
"""

SUBSCRIBE = """
INSERT INTO subscriptions (id, account_id, plan_id, plan_version, state, started_at, period_start, period_end,
                           version_since)
VALUES (%(id)s, %(account)s, %(id)s, 1, %(state)s, %(start)s, %(start)s, %(end)s, %(start)s)
"""

NONE = {"mode": "none", "tiers": [{"up_to": None, "factor": "1"}]}


@pytest.fixture
def model(database):
    """A model that costs 1 per million tokens of any kind."""
    name = new_id("model")
    with database.connection() as connection:
        connection.execute(INSERT_PRICE, (new_id("price"), name, BEGAN))
    return name


@pytest.fixture
def customer(database, account):
    with database.transaction() as connection:
        billing_details.ensure(connection, account, "EUR")
    return account


@pytest.fixture
def subscribe(database, customer):
    """`subscribe(included)` gives the customer a plan, by default one without overage."""

    def subscribe(included, overage=NONE, state="active"):
        id_, now = new_id("plan"), datetime.now(UTC)
        parameters = {"id": id_, "account": customer, "included": included, "overage": Jsonb(overage), "state": state}
        with database.transaction() as connection:
            connection.execute(INSERT_PLAN, parameters)
            connection.execute(
                SUBSCRIBE, {**parameters, "start": now - timedelta(days=5), "end": now + timedelta(days=25)}
            )
        return id_

    return subscribe


@pytest.fixture
def grant(database, customer):
    def grant(amount):
        with database.transaction() as connection:
            connection.execute(INSERT_GRANT, (new_id("grant"), customer, Decimal(amount)))

    return grant


@pytest.fixture
def start(database, customer, model):
    """`start(amount)` inserts a job that may cost so much, and returns its id."""

    def start(amount, **options):
        job = NewJob("turn.run", customer)
        most = MostTokens(model, int(Decimal(amount) * 1_000_000), 0)
        with database.transaction() as connection:
            reserve(connection, customer, {job.id: most}, **options)
            enqueue(connection, job)
        return job.id

    return start


@pytest.fixture
def finish(database, customer, model):
    """`finish(job_id, amount)` ends a job that has cost so much."""

    def finish(job_id, amount):
        usage = TokenUsage(int(Decimal(amount) * 1_000_000), 0, 0)
        with database.transaction() as connection:
            connection.execute("UPDATE jobs SET state = 'completed', finished_at = now() WHERE id = %s", (job_id,))
            bill(connection, usage, job_id=job_id, account_id=customer, model=model)

    return finish


def read(database, customer):
    with database.connection() as connection:
        return prepaid.read(connection, customer)


def test_a_plan_without_overage_bounds_usage_by_what_is_included_and_credits(subscribe, grant, start, finish):
    # Given 5 included, 3 of credits, and usage of 6
    subscribe("5")
    grant("3")
    finish(start("6"), "6")

    # When a request may cost more than is left, Then it is rejected with what to do
    with pytest.raises(SpendingLimitReached) as error:
        start("2.000001")
    message = str(error.value)
    assert error.value.code == "insufficient_credits"
    assert all(part in message for part in ("costs up to 2.000001 EUR", "5.00 EUR of usage included", "3.00 EUR of",
               "6 are used", "0 are reserved", "/billing/credits/top_up", "/billing/payment_methods"))  # fmt: skip

    # And what is left is admitted
    start("2")
    with pytest.raises(SpendingLimitReached, match="2 are reserved"):
        start("0.000001")


def test_concurrent_requests_at_the_edge_do_not_exceed_it(database, customer, subscribe, grant, start):
    # Given included usage and credits that ten of 64 requests fit
    subscribe("7")
    grant("3")
    barrier, refused = threading.Barrier(64), []

    def ask():
        barrier.wait(30)
        try:
            start("1")
        except SpendingLimitReached as error:
            refused.append(error)

    # When all ask at once
    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    # Then ten are admitted, and not one more
    assert len(refused) == 54
    assert read(database, customer).reserved == 10


def test_jobs_that_end_meanwhile_are_either_reserved_or_used(database, customer, subscribe, start, finish):
    # Given a job after the other, each of which costs what it reserved
    subscribe("1000")
    done = threading.Event()

    def work():
        for _ in range(100):
            finish(start("1"), "1")
        done.set()

    # When they are read while they run
    thread, seen = threading.Thread(target=work), [Decimal(0)]
    thread.start()
    while not done.is_set():
        account = read(database, customer)
        seen.append(account.used + account.reserved)
    thread.join(60)

    # Then their sum never falls, and none is counted twice
    assert seen == sorted(seen)
    assert seen[-1] <= 100
    assert read(database, customer).used == 100


def test_an_account_without_a_payment_method_pays_in_advance_where_one_is_required(database, customer, grant, start):
    grant("2")

    start("100")
    with pytest.raises(SpendingLimitReached, match="costs up to 3 EUR"):
        start("3", method_required=True)

    method = (
        "INSERT INTO payment_methods (id, account_id, gateway, gateway_method_id, label) VALUES (%s, %s, 'x', %s, 'x')"
    )
    with database.connection() as connection:
        connection.execute(method, (new_id("pm"), customer, new_id("pm")))
    start("3", method_required=True)
    with database.connection() as connection:
        connection.execute("UPDATE payment_methods SET detached_at = now() WHERE account_id = %s", (customer,))
    with pytest.raises(SpendingLimitReached):
        start("3", method_required=True)


@pytest.mark.parametrize("state", ["trialing", "active", "past_due"])
def test_included_usage_counts_while_the_plan_applies(database, customer, subscribe, state):
    subscribe("5", state=state)

    assert read(database, customer).left == 5


def test_an_unpaid_subscription_includes_nothing_and_still_pays_in_advance(subscribe, start):
    subscribe("5", state="unpaid")

    with pytest.raises(SpendingLimitReached):
        start("1")


def test_a_subscription_that_was_never_paid_does_not_limit(subscribe, start):
    subscribe("5", state="incomplete")

    start("10")


def test_invoiced_usage_no_longer_counts(database, customer, subscribe, grant, start, finish):
    # Given usage of 4, of which a finalised invoice has 3 and another one, which is void, the rest
    subscribe("5")
    finish(start("4"), "4")
    invoice = """
        INSERT INTO invoices (id, account_id, number, state, reason, currency) VALUES (%s, %s, %s, %s, 'renewal', 'EUR')
    """
    line = """
        INSERT INTO invoice_lines (invoice_id, position, kind, description, exact, amount)
        VALUES (%s, 1, 'usage', 'x', %s, 0)
    """
    with database.transaction() as connection:
        for state, amount in (("paid", 3), ("void", 1)):
            id_ = new_id("inv")
            connection.execute(invoice, (id_, customer, id_, state))
            connection.execute(line, (id_, amount))

    # Then the rest counts
    account = read(database, customer)
    assert (account.used, account.earlier, account.left) == (1, 0, 4)


def test_usage_of_an_earlier_period_has_its_own_included_amount(database, customer, subscribe, grant, start, finish):
    # Given a period with 5 included, of which 4 were used, and usage of 1 after the renewal
    subscribe("5")
    finish(start("4"), "4")
    with database.transaction() as connection:
        connection.execute(
            "UPDATE usage_records SET created_at = now() - interval '6 days' WHERE account_id = %s", (customer,)
        )
    finish(start("1"), "1")
    grant("3")
    assert read(database, customer).left == 4  # nothing says what the earlier period included

    # When the draft of the renewal exists
    job = NewJob("invoice.draft", customer, {"invoice_id": "inv_x", "included": {"amount": "5", "overage": NONE}})
    with database.transaction() as connection:
        enqueue(connection, job)

    # Then the new period has all that it includes
    account = read(database, customer)
    assert (account.earlier, account.earlier_included, account.used, account.left) == (4, 5, 1, 7)


ACCOUNT = PrepaidAccount("EUR", *map(Decimal, ("119", "10")), NONE, *map(Decimal, ("0", "0", "0", "0", "19")))


def test_credits_pay_the_tax_too():
    assert ACCOUNT.left == 110
    assert ACCOUNT.allows(Decimal(110))
    assert not ACCOUNT.allows(Decimal("110.01"))


@pytest.mark.parametrize(("mode", "fits", "left"), [("graduated", "160", "60"), ("volume", "100", "60")])
def test_tiers_price_what_credits_pay(mode, fits, left):
    # 50 at twice the price, and 100 at half of it; with `volume` 50 cost 100 and 200 cost no more than those
    tiers = [{"up_to": "50", "factor": "2"}, {"up_to": None, "factor": "0.5"}]
    account = replace(
        ACCOUNT, credits=Decimal(150 if mode == "graduated" else 100), overage={"mode": mode, "tiers": tiers},
        tax_rate=Decimal(0),
    )  # fmt: skip

    assert account.allows(Decimal(fits))
    assert not account.allows(Decimal("211"))
    assert account.left == (Decimal(85) if mode == "graduated" else Decimal(left))


def test_background_work_gets_the_tokens_that_are_paid_for(database, customer, subscribe, model, start):
    subscribe("3")
    start("1")

    with database.connection() as connection:
        assert spending.tokens_left(connection, customer, model) == 2_000_000
        assert spending.tokens_left(connection, customer, "free") is None

"""The usage record of a job, its posting and what was spent."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from models.billing import billing_details, spending
from models.billing.postings import balances
from models.jobs.usage import TokenUsage, UsageSource, bill
from models.platform.database import fetch_all, fetch_one
from models.platform.ids import new_id

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

BY_USER = UsageSource(user_id="user_1")

RECORD = """
SELECT billed_amount, billed_currency, price_id, billed_user_id, billed_key_id, waived_amount FROM usage_records
WHERE job_id = %s
"""


@pytest.fixture
def model():
    return new_id("model")


@pytest.fixture
def set_price(database, model):
    """`set_price(input, …)` inserts a price, by default from long ago, and returns its id."""

    def set_price(input_price, *, output=10, cached=0, begins=BEGAN, service_class="standard", endpoint=""):
        price_id = new_id("price")
        with database.connection() as connection:
            connection.execute(
                "INSERT INTO prices (id, model, endpoint, service_class, currency, input, cached_input, output, "
                "valid_from) VALUES (%s, %s, %s, %s, 'EUR', %s, %s, %s, %s)",
                (price_id, model, endpoint, service_class, input_price, cached, output, begins),
            )
        return price_id

    return set_price


@pytest.fixture
def billed(database, account):
    """An account that has been billed since before every job."""
    with database.transaction() as connection:
        billing_details.ensure(connection, account, "EUR")
        connection.execute("UPDATE accounts SET billed_since = %s WHERE id = %s", (BEGAN, account))
    return account


@pytest.fixture
def use(database, account, model):
    """`use(usage, …)` ends a job with so many tokens and returns its id."""

    def use(usage, source=BY_USER, job_id=None):
        job_id = job_id or new_id("job")
        with database.transaction() as connection:
            bill(connection, usage, job_id=job_id, account_id=account, model=model, source=source)
        return job_id

    return use


def record_of(database, job_id):
    with database.connection() as connection:
        return fetch_one(connection, RECORD, (job_id,))


def revenue(database, account):
    with database.connection() as connection:
        found = balances(connection, account)
    assert sum(found.values()) == 0
    return -found.get(("revenue", "EUR"), Decimal(0))


def spent(database, account, scope=""):
    with database.connection() as connection:
        return spending.monthly_spending(connection, account, scope).spent


MILLION = TokenUsage(1_000_000, 0, 0)


def test_usage_is_posted_at_the_price_of_its_tokens(database, billed, set_price, use):
    # Given a price of 2 for input, 0.5 for cached input and 10 for output
    price_id = set_price(2, cached=Decimal("0.5"))

    # When a job ends that read 1,000 tokens, 400 of them from the cache, and wrote 20
    source = UsageSource(user_id="user_1", key_id="key_1")
    job_id = use(TokenUsage(1000, 400, 20), source)

    # Then each kind has its own price
    cost = Decimal("0.0012") + Decimal("0.0002") + Decimal("0.0002")
    assert record_of(database, job_id) == {
        "billed_amount": cost, "billed_currency": "EUR", "price_id": price_id, "billed_user_id": "user_1",
        "billed_key_id": "key_1", "waived_amount": None,
    }  # fmt: skip
    assert revenue(database, billed) == cost
    assert [spent(database, billed, scope) for scope in ("", "key:key_1", "key:key_2")] == [cost, cost, 0]


def test_costs_smaller_than_any_coin_are_exact(database, billed, set_price, use):
    set_price(Decimal("0.00000001"), output=0)

    for _ in range(3):
        use(TokenUsage(1, 0, 5))

    assert revenue(database, billed) == Decimal("0.00000000000003")


def test_a_later_price_does_not_change_what_an_earlier_job_costs(database, billed, set_price, use):
    # Given two prices, one after the other
    change = BEGAN + timedelta(days=30)
    set_price(1)
    set_price(5, begins=change)

    # When jobs end that were created before, at and after the change, Then each has the price of its creation
    for moment, expected in ((change - timedelta(seconds=1), 1), (change, 5), (None, 5)):
        job_id = use(MILLION, UsageSource(created_at=moment))
        assert record_of(database, job_id)["billed_amount"] == expected
    assert revenue(database, billed) == 11


def test_a_price_of_the_class_and_the_endpoint_comes_first(database, billed, set_price, use):
    set_price(1)
    set_price(3, endpoint="groq")
    set_price(Decimal("0.5"), service_class="batch")

    sources = [UsageSource(), UsageSource(endpoint="groq"), UsageSource(endpoint="groq", service_class="batch"),
               UsageSource(service_class="priority")]  # fmt: skip
    amounts = [record_of(database, use(MILLION, source))["billed_amount"] for source in sources]

    assert amounts == [1, 3, Decimal("0.5"), 1]


@pytest.mark.parametrize(("tokens", "legs"), [(3_000_000, 2), (1_000_000, 1), (400_000, 2), (0, 2)])
def test_a_replay_posts_the_difference_of_either_sign(database, billed, set_price, use, tokens, legs):
    set_price(1)
    job_id = use(MILLION)

    use(replace(MILLION, input_tokens=tokens), job_id=job_id)

    cost = Decimal(tokens) / 1_000_000
    assert record_of(database, job_id)["billed_amount"] == cost
    assert (revenue(database, billed), spent(database, billed)) == (cost, cost)
    with database.connection() as connection:
        assert len(fetch_all(connection, "SELECT id FROM postings WHERE reference = %s", (job_id,))) == legs


def test_a_replay_after_the_invoice_is_waived(database, billed, set_price, use):
    # Given a job that is on an invoice
    set_price(1)
    job_id = use(MILLION)
    with database.connection() as connection:
        connection.execute("UPDATE usage_records SET billed_on = 'inv_1' WHERE job_id = %s", (job_id,))

    # When it is replayed with more tokens
    use(TokenUsage(1_500_000, 0, 0), job_id=job_id)

    # Then what was invoiced stays
    record = record_of(database, job_id)
    assert (record["billed_amount"], record["waived_amount"]) == (1, Decimal("0.5"))
    assert revenue(database, billed) == 1


def test_an_account_without_billing_has_tokens_but_no_amount(database, account, set_price, use):
    set_price(1)

    job_id = use(MILLION)

    record = record_of(database, job_id)
    assert (record["billed_amount"], record["price_id"], record["billed_user_id"]) == (None, None, "user_1")
    assert (revenue(database, account), spent(database, account)) == (0, 0)


def test_jobs_from_before_the_billing_began_are_free(database, billed, set_price, use):
    set_price(1, begins=BEGAN - timedelta(days=2))

    job_id = use(MILLION, UsageSource(created_at=BEGAN - timedelta(days=1)))

    assert record_of(database, job_id)["billed_amount"] is None


def test_a_model_without_a_price_is_free(database, billed, use):
    assert record_of(database, use(MILLION))["billed_amount"] is None


def test_a_price_of_zero_is_recorded_without_a_posting(database, billed, set_price, use):
    price_id = set_price(0)

    record = record_of(database, use(MILLION))

    assert (record["billed_amount"], record["price_id"]) == (0, price_id)
    assert revenue(database, billed) == 0

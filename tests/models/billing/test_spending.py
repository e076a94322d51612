"""Spending limits: reservations of unfinished jobs and what was spent."""

import threading
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from models.billing import billing_details, spending
from models.billing.spending import MostTokens, reserve
from models.jobs.jobs import NewJob, enqueue
from models.jobs.usage import TokenUsage, UsageSource, bill
from models.platform.errors import SpendingLimitReached
from models.platform.ids import new_id

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

INSERT_PRICE = """
INSERT INTO prices (id, model, currency, input, cached_input, output, valid_from)
VALUES (%s, %s, 'EUR', 1, 1, 1, %s)
"""


@pytest.fixture
def model(database):
    """A model that costs 1 per million tokens of any kind."""
    name = new_id("model")
    with database.connection() as connection:
        connection.execute(INSERT_PRICE, (new_id("price"), name, BEGAN))
    return name


@pytest.fixture
def billed(database, account):
    with database.transaction() as connection:
        billing_details.ensure(connection, account, "EUR")
    return account


@pytest.fixture
def limit(database, billed):
    """`limit(amount, scope)` sets a limit of the account."""

    def limit(amount, scope=""):
        with database.transaction() as connection:
            spending.set_limit(connection, billed, scope, Decimal(amount))

    return limit


@pytest.fixture
def start(database, billed, model):
    """`start(amount)` inserts a job that may cost so much, and returns its id."""

    def start(amount, key_id=None):
        job = NewJob("turn.run", billed)
        most = MostTokens(model, int(Decimal(amount) * 1_000_000), 0)
        with database.transaction() as connection:
            reserve(connection, billed, {job.id: most}, key_id=key_id)
            enqueue(connection, job)
        return job.id

    return start


@pytest.fixture
def finish(database, billed, model):
    """`finish(job_id, amount)` ends a job that has cost so much."""

    def finish(job_id, amount, key_id=None):
        usage = TokenUsage(int(Decimal(amount) * 1_000_000), 0, 0)
        with database.transaction() as connection:
            connection.execute("UPDATE jobs SET state = 'completed', finished_at = now() WHERE id = %s", (job_id,))
            source = UsageSource(key_id=key_id)
            bill(connection, usage, job_id=job_id, account_id=billed, model=model, source=source)

    return finish


def now(database, account, scope=""):
    with database.connection() as connection:
        found = spending.monthly_spending(connection, account, scope)
    return found.spent, found.reserved


def test_a_job_reserves_the_most_it_can_cost_and_settles_what_it_did(database, billed, limit, start, finish):
    # Given a limit of 10
    limit("10")

    # When a job that may cost 8 runs, Then 8 are reserved
    job_id = start("8")
    assert now(database, billed) == (0, 8)
    with pytest.raises(SpendingLimitReached):
        start("3")

    # When it ends with a cost of 5, Then the rest is available again
    finish(job_id, "5")
    assert now(database, billed) == (5, 0)
    start("5")
    with pytest.raises(SpendingLimitReached):
        start("0.000001")


def test_the_error_names_limit_and_amounts(limit, start, finish):
    limit("10")
    finish(start("4"), "4")
    start("3")

    with pytest.raises(SpendingLimitReached) as error:
        start("5")

    message = str(error.value)
    assert all(
        part in message for part in ("costs up to 5 EUR", "10.00 EUR per month", "4 are spent", "3 are reserved")
    )
    assert error.value.code == "spending_limit_reached"


def test_a_limit_of_an_api_key_counts_its_own_jobs(database, billed, limit, start, finish):
    limit("2", "key:key_1")

    finish(start("2", "key_1"), "1", "key_1")
    start("100")
    start("100", "key_2")

    assert now(database, billed, "key:key_1") == (1, 0)
    with pytest.raises(SpendingLimitReached, match="API key key_1"):
        start("1.5", "key_1")


def test_without_a_limit_nothing_is_reserved(database, billed, start, finish):
    finish(start("1000"), "1")

    assert now(database, billed) == (1, 0)


def test_a_model_without_a_price_is_admitted_at_any_limit(database, billed, limit):
    limit("0")

    with database.transaction() as connection:
        reserve(connection, billed, {new_id("job"): MostTokens("free", 10**9, 10**9)})


def test_a_repeated_request_does_not_count_its_own_reservation_twice(database, billed, limit, model):
    limit("1")
    job = NewJob("turn.run", billed)
    most = {job.id: MostTokens(model, 1_000_000, 0)}
    with database.transaction() as connection:
        reserve(connection, billed, most)
        enqueue(connection, job)

    with database.transaction() as connection:
        reserve(connection, billed, most)

    assert now(database, billed) == (0, 1)


@pytest.mark.parametrize("state", ["failed", "cancelled", "dead"])
def test_a_reservation_ends_with_its_job(database, billed, limit, start, state):
    limit("1")
    job_id = start("1")

    with database.connection() as connection:
        connection.execute("UPDATE jobs SET state = %s, finished_at = now() WHERE id = %s", (state, job_id))

    assert now(database, billed) == (0, 0)
    start("1")


def test_concurrent_requests_at_the_edge_of_the_limit_do_not_exceed_it(database, billed, limit, start):
    # Given a limit that ten of 64 requests fit
    limit("10")
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
    assert now(database, billed) == (0, 10)


def test_the_tokens_that_are_left_follow_from_the_smallest_limit(database, billed, limit, model, start):
    limit("3")
    start("1")

    with database.connection() as connection:
        assert spending.tokens_left(connection, billed, model) == 2_000_000
        assert spending.tokens_left(connection, billed, "free") is None

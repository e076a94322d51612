"""The customer of a closed account is deleted at Stripe."""

from datetime import UTC, datetime, timedelta

import pytest

from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.billing import payment_methods
from models.jobs.jobs import NewJob
from models.platform.database import fetch_all
from models.platform.errors import Released
from pipelines.accounts import deletion
from pipelines.billing import customers
from pipelines.billing.gateways.gateway import GatewayFailed

JOBS = "SELECT id, run_at, arguments FROM jobs WHERE kind = 'customer.delete' AND arguments ->> 'account_id' = %s"


@pytest.fixture
def at_stripe(gateway, customer, database):
    """The id of the account's customer at Stripe."""
    created = gateway.create_customer(customer, "A name")
    with database.transaction() as connection:
        payment_methods.store_customer(connection, customer, "stripe", created)
    return created


@pytest.fixture
def close(customer, database):
    """`close()` closes the account. Returns the jobs that delete its customers, as (id, arguments)."""

    def close():
        deletion.close_account(database, Caller(user_id="user_1", account_id=customer, role="owner"), RequestOrigin())
        with database.connection() as connection:
            rows = fetch_all(connection, JOBS, (customer,))
        return [NewJob("customer.delete", "platform", row["arguments"], id=row["id"]) for row in rows]

    return close


def test_the_customer_of_a_closed_account_is_deleted_with_retries(close, at_stripe, server, gateways, begin, settle):
    # Given a closed account, and a gateway that fails twice
    [job] = close()
    server.faults.extend([500, "unsent"])
    for _ in range(2):
        with pytest.raises(GatewayFailed):
            customers.run(gateways, begin(job))

    # When the job is tried again
    attempt = begin(job)
    settle(attempt, customers.run(gateways, attempt))

    # Then
    assert at_stripe not in server.objects


def test_a_customer_that_is_gone_already_is_no_error(gateway, at_stripe, server):
    gateway.delete_customer(at_stripe)

    gateway.delete_customer(at_stripe)

    assert server.of_type("customer") == []


def test_an_account_without_a_customer_has_nothing_to_delete(close):
    assert close() == []


@pytest.mark.parametrize(("hours", "deleted"), [(0, False), (25, True)])
def test_the_customer_stays_a_day_at_most_for_a_payment_in_doubt(
    close, at_stripe, pay, server, gateways, begin, database, hours, deleted
):
    # Given a payment of the closed account that nobody has decided
    pay(gateway="stripe")
    [job] = close()
    with database.transaction() as connection:
        created_at = datetime.now(UTC) - timedelta(hours=hours)
        connection.execute("UPDATE jobs SET created_at = %s WHERE id = %s", (created_at, job.id))

    # When
    if deleted:
        customers.run(gateways, begin(job))
    else:
        with pytest.raises(Released):
            customers.run(gateways, begin(job))

    # Then
    assert (at_stripe not in server.objects) == deleted

"""Fixtures of payments: an account with money, gateways, and workers that run its jobs."""

from decimal import Decimal

import pytest

from models.billing import billing_details, payment_methods, payments
from models.jobs import attempts
from models.jobs.jobs import NewJob
from pipelines.billing import charge, refund, webhook_events
from pipelines.billing.gateways.registry import Gateways, open_simulator
from tests.pipelines.billing.books import reset_seller
from tests.pipelines.billing.gateway_books import Books

RUNNERS = {
    "payment.charge": charge.run,
    "payment.check": charge.check,
    "payment.refund": refund.run,
    "refund.check": refund.check,
    "gateway.event": webhook_events.run,
}


@pytest.fixture(autouse=True)
def seller(database):
    """The seller of a new installation."""
    reset_seller(database)


@pytest.fixture
def customer(database, account):
    """The id of an account that pays in EUR."""
    with database.transaction() as connection:
        billing_details.ensure(connection, account, "EUR")
    return account


@pytest.fixture
def simulator(settings, database):
    """The simulated gateway."""
    return open_simulator(settings, database)


@pytest.fixture
def gateways(settings, database):
    """The gateways of the settings."""
    return Gateways(settings, database)


@pytest.fixture
def books(database, customer):
    """What the simulated gateway has noted of the customer, and what we have."""
    return Books(database, customer)


@pytest.fixture
def add_method(database, simulator, customer):
    """`add_method("pm_test_visa")` → the id of a payment method of the customer."""

    def add_method(card):
        stored = simulator.store_method(customer, card)
        with database.transaction() as connection:
            method = payment_methods.add(
                connection, customer, gateway="test", gateway_method_id=stored.gateway_method_id, label=stored.label
            )
        return method.id

    return add_method


@pytest.fixture
def pay(database, customer):
    """`pay("12.50", method_id)` → a pending payment and its job, which is enqueued."""

    def pay(amount="12.50", method_id=None, currency="EUR", gateway="test", invoice_id=None):
        with database.transaction() as connection:
            return payments.new_payment(
                connection, customer, invoice_id=invoice_id, amount=Decimal(amount), currency=currency, gateway=gateway,
                payment_method_id=method_id,
            )  # fmt: skip

    return pay


@pytest.fixture
def settle(database):
    """`settle(attempt, ending)` ends the job as a worker does, in a pipelined transaction."""

    def settle(attempt, ending):
        with database.batch() as connection:
            attempts.end(connection, attempt.job, ending, [*attempt.journal.archivable(), *ending.events])

    return settle


@pytest.fixture
def work(begin, settle, gateways):
    """`work(job)` runs one attempt of a job to its end, and returns its result."""

    def work(job: NewJob):
        attempt = begin(job)
        ending = RUNNERS[job.kind](gateways, attempt)
        settle(attempt, ending)
        return ending.result

    return work


@pytest.fixture
def deliver(database, work, books):
    """`deliver()` runs the jobs of the customer's events that the simulated gateway has sent."""

    def deliver():
        for event_id in books.event_ids():
            work(NewJob("gateway.event", "platform", {"gateway": "test", "event_id": event_id}))

    return deliver

"""Events of gateways: late, doubled, out of order, and about nothing of ours."""

from decimal import Decimal

import orjson
import pytest

from models.billing import billing_details, gateway_events, payment_methods, settlement
from models.billing.payments import PaymentOutcome
from models.jobs.jobs import NewJob
from models.platform.ids import new_id
from pipelines.billing import webhook_events


@pytest.fixture
def apply(database, work):
    """`apply(type, object_id)` stores an event and runs its job. Returns the event."""

    def apply(event_type, object_id):
        event_id = new_id("evt")
        payload = orjson.dumps({"id": event_id, "type": event_type, "object": object_id}).decode()
        with database.transaction() as connection:
            gateway_events.insert(connection, "test", event_id, event_type, payload)
        work(NewJob("gateway.event", "platform", {"gateway": "test", "event_id": event_id}))
        with database.connection() as connection:
            return gateway_events.read(connection, "test", event_id)

    return apply


def test_event_about_nothing_of_ours_is_ignored(apply):
    assert apply("charge.succeeded", "ch_unknown").state == "ignored"


def test_late_event_does_not_move_a_payment_backwards(apply, pay, work, books):
    payment, job = pay()
    work(job)

    event = apply("charge.requires_action", books.payment(payment.id).gateway_payment_id)

    assert (event.state, books.payment(payment.id).state) == ("applied", "succeeded")


@pytest.mark.parametrize("state", ["pending", "requires_action", "failed"])
def test_older_states_change_nothing_of_a_paid_payment(database, pay, work, books, state):
    payment, job = pay()
    work(job)
    before = books.payment(payment.id)

    with database.transaction() as connection:
        jobs = settlement.settle(connection, payment, PaymentOutcome(state, "ch_1", payment.created_at))

    assert jobs == []
    assert books.payment(payment.id) == before
    assert books.balance("receivable") == Decimal("-12.50")


def test_event_of_an_added_method_adds_it_to_its_account(simulator, customer, database, deliver):
    simulator.store_method(customer, "pm_test_visa")

    deliver()

    with database.connection() as connection:
        [method] = payment_methods.list_methods(connection, customer)
    assert (method.label, method.is_default) == ("Visa 4242", True)


def test_event_of_a_method_of_an_erased_account_stores_nothing_of_it(simulator, account, apply, database):
    stored = simulator.store_method(account, "pm_test_visa")
    with database.connection() as connection:
        connection.execute("UPDATE accounts SET erased_at = now() WHERE id = %s", (account,))

    assert apply("method.attached", stored.gateway_method_id).state == "ignored"
    with database.connection() as connection:
        assert billing_details.read(connection, account) is None
        assert payment_methods.list_methods(connection, account) == []


def test_event_of_a_detached_method_removes_it(add_method, simulator, customer, database, deliver):
    add_method("pm_test_visa")
    with database.connection() as connection:
        [method] = payment_methods.list_methods(connection, customer)

    simulator.detach_method(method.gateway_method_id)
    deliver()

    with database.connection() as connection:
        assert payment_methods.list_methods(connection, customer) == []


def test_event_that_fails_for_good_is_marked(database, begin, settle):
    event_id = new_id("evt")
    with database.transaction() as connection:
        gateway_events.insert(connection, "stripe", event_id, "charge.updated", "{}")
    attempt = begin(NewJob("gateway.event", "platform", {"gateway": "stripe", "event_id": event_id}))

    settle(attempt, webhook_events.end(attempt, "dead", {"code": "server_error", "message": "no"}))

    with database.connection() as connection:
        assert gateway_events.read(connection, "stripe", event_id).state == "failed"

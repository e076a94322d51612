"""The gateways' own books are those here, and each difference is found."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from models.billing import refunds
from pipelines.billing.audit import gateway_books
from pipelines.billing.gateways.gateway import GatewayFailed


@pytest.fixture(autouse=True)
def no_grace(monkeypatch):
    """Report payments that have just arrived, too."""
    monkeypatch.setattr(gateway_books, "GRACE", timedelta(0))


@pytest.fixture
def compare(database, gateways, customer):
    """`compare("test")` → the customer's differences of today."""

    def compare(name="test", **span):
        end = datetime.now(UTC) + timedelta(seconds=1)
        start = end - timedelta(**span or {"hours": 1})
        found = gateway_books.differences(database, gateways.get(name), start, end)
        return [each for each in found if each.account_id == customer]

    return compare


@pytest.fixture
def paid(pay, work, add_method, database, books):
    """A payment that has arrived, of which a part was refunded, beside one that failed and one that is disputed."""
    payment, job = pay()
    work(job)
    for card in ("pm_test_declined", "pm_test_disputed", "pm_test_dispute_lost", "pm_test_refund_pending"):
        _, other_job = pay(method_id=add_method(card))
        work(other_job)
    with database.transaction() as connection:
        _, refund_job = refunds.new_refund(connection, payment, amount=Decimal("5.00"))
    work(refund_job)
    return books.payment(payment.id)


def test_books_that_agree_have_no_difference(paid, compare):
    assert compare() == []


@pytest.mark.parametrize(
    ("table", "change"),
    [("simulated_objects", "amount = amount + 1"), ("simulated_objects", "returned = 0"),
     ("simulated_objects", "disputed = 3"), ("simulated_objects", "currency = 'USD'"),
     ("payments", "state = 'failed'"), ("payments", "amount = 13"), ("payments", "refunded = 4")],
)  # fmt: skip
def test_difference_of_a_payment_is_found(paid, compare, database, table, change):
    key = paid.gateway_payment_id if table == "simulated_objects" else paid.id
    with database.connection() as connection:
        connection.execute(f"UPDATE {table} SET {change} WHERE id = %s", (key,))

    [difference] = compare()

    assert (difference.check, difference.subject) == ("gateway_books", paid.id)
    assert difference.expected != difference.found


def test_charge_without_a_payment_and_payment_without_a_charge_are_found(paid, compare, database):
    with database.connection() as connection:
        statement = "UPDATE simulated_objects SET id = 'ch_other', idempotency_key = 'pay_other' WHERE id = %s"
        connection.execute("DELETE FROM simulated_objects WHERE parent_id = %s", (paid.gateway_payment_id,))
        connection.execute(statement, (paid.gateway_payment_id,))

    found = {each.subject: (each.expected.split()[0], each.found.split()[0]) for each in compare()}

    assert found == {"pay_other": ("ch_other", "no"), paid.id: ("nothing", paid.gateway_payment_id)}
    with database.connection() as connection:
        connection.execute("DELETE FROM simulated_objects WHERE id = 'ch_other'")


def test_charge_that_has_just_arrived_is_given_time(paid, compare, database, monkeypatch):
    monkeypatch.setattr(gateway_books, "GRACE", timedelta(minutes=10))
    with database.connection() as connection:
        connection.execute("UPDATE payments SET state = 'pending' WHERE id = %s", (paid.id,))

    assert compare() == []


def test_charge_that_was_made_on_a_later_day_is_read_by_itself(paid, compare, database):
    """The queue may have been down for a night."""
    with database.connection() as connection:
        connection.execute("UPDATE payments SET created_at = now() - interval '30 hours' WHERE id = %s", (paid.id,))

    assert compare(days=2) == []


def test_change_between_the_two_readings_is_no_difference(paid, compare, database, gateways, monkeypatch):
    # Given a list that is older than a refund
    gateway = gateways.get("test")
    listed = list(gateway.list_payments(datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC)))
    with database.connection() as connection:
        connection.execute("UPDATE payments SET refunded = 0 WHERE id = %s", (paid.id,))
        connection.execute("UPDATE simulated_objects SET returned = 0 WHERE id = %s", (paid.gateway_payment_id,))
    monkeypatch.setattr(gateway, "list_payments", lambda start, end: iter(listed))

    assert compare() == []


def test_gateway_that_does_not_answer_raises(compare, gateways, monkeypatch):
    def fail(start, end):
        raise GatewayFailed("no")

    monkeypatch.setattr(gateways.get("test"), "list_payments", fail)

    with pytest.raises(GatewayFailed):
        compare()

"""The books of Stripe, which the audit lists."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from models.billing import refunds
from pipelines.billing.audit import gateway_books


def test_books_of_stripe_are_compared_page_by_page(charged, work, books, server, database, gateway, monkeypatch):
    # Given payments, of which one is refunded in part and one is disputed, and intents of others
    monkeypatch.setattr(gateway_books, "GRACE", timedelta(0))
    server.page_size = 2
    made = []
    for _ in range(5):
        payment, job = charged()
        work(job)
        made.append(payment)
    with database.transaction() as connection:
        _, refund_job = refunds.new_refund(connection, made[0], amount=Decimal("2.50"))
    work(refund_job)
    server.dispute(books.payment(made[1].id).gateway_payment_id, "lost", amount=300)
    fields = {"amount": 1, "amount_received": 1, "currency": "eur", "status": "succeeded", "customer": None}
    other = server.create("pi", "payment_intent", {**fields, "metadata": {}})
    other["latest_charge"] = server.of_type("charge")[0]["id"]
    span = (datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(seconds=2))

    def compare():
        found = gateway_books.differences(database, gateway, *span)
        return [each for each in found if each.account_id == made[0].account_id]

    # Then the dispute of which there was no event is the only difference
    [difference] = compare()
    assert difference.subject == made[1].id
    assert "disputed 3.00" in difference.expected

    # And a second intent of a payment is found
    double = {name: value for name, value in server.of_type("payment_intent")[-1].items() if name != "id"}
    copy = server.create("pi", "payment_intent", double)
    assert copy["id"] in {each.expected.split()[0] for each in compare()}

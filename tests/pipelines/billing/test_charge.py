"""Payments with each payment method of the simulated gateway."""

from datetime import timedelta
from decimal import Decimal

import pytest

from models.accounts.ownership import Access
from models.billing import refunds, settlement
from models.billing.payments import PaymentOutcome
from models.jobs import effects, jobs
from models.jobs.jobs import NewJob
from pipelines.billing.gateways.gateway import GatewayFailed
from tests.pipelines.billing.books import audit


def test_payment_succeeds_and_is_posted_with_the_fee(pay, work, books):
    payment, job = pay("100.00")

    result = work(job)

    assert result["state"] == "succeeded"
    paid = books.payment(payment.id)
    assert (paid.state, paid.fee, paid.ended_at is not None) == ("succeeded", Decimal("2.90"), True)
    assert books.balance("receivable") == Decimal("-100.00")
    assert books.balance("gateway") == Decimal("97.10")
    assert books.balance("fees") == Decimal("2.90")


@pytest.mark.parametrize(
    ("card", "code"), [("pm_test_declined", "card_declined"), ("pm_test_insufficient_funds", "insufficient_funds")]
)
def test_declined_payment_fails_with_the_reason_and_posts_nothing(add_method, pay, work, books, card, code):
    payment, job = pay(method_id=add_method(card))

    assert work(job)["payment_error"]["code"] == code
    failed = books.payment(payment.id)
    assert (failed.state, failed.error["code"]) == ("failed", code)
    assert books.balance("gateway") == 0


def test_time_out_after_acceptance_is_looked_up(add_method, pay, work, books):
    # Given a gateway that accepts the charge and does not answer
    payment, job = pay(method_id=add_method("pm_test_timeout"))
    with pytest.raises(GatewayFailed):
        work(job)

    # When the next attempt runs
    work(job)

    # Then the customer was charged once
    assert [charge["state"] for charge in books.charges()] == ["succeeded"]
    assert books.payment(payment.id).state == "succeeded"
    assert books.balance("receivable") == Decimal("-12.50")


def test_payment_waits_until_the_customer_confirms_it(add_method, pay, work, books, simulator, deliver):
    payment, job = pay(method_id=add_method("pm_test_action_required"))
    work(job)
    waiting = books.payment(payment.id)
    assert (waiting.state, waiting.action_url.rpartition("/")[2]) == ("requires_action", waiting.gateway_payment_id)

    simulator.answer(waiting.gateway_payment_id, confirmed=True)
    deliver()

    assert books.payment(payment.id).state == "succeeded"
    assert books.payment(payment.id).action_url is None
    assert books.balance("receivable") == Decimal("-12.50")
    assert books.event_ids() == []


def test_payment_that_the_customer_rejects_fails(add_method, pay, work, books, simulator, deliver):
    payment, job = pay(method_id=add_method("pm_test_action_required"))
    work(job)

    simulator.answer(books.payment(payment.id).gateway_payment_id, confirmed=False)
    deliver()

    assert books.payment(payment.id).error["code"] == "action_failed"


@pytest.mark.parametrize("card", ["pm_test_visa", "pm_test_duplicate_events"])
def test_events_before_and_after_the_answer_settle_once(add_method, pay, work, books, deliver, card):
    payment, job = pay(method_id=add_method(card))

    work(job)
    deliver()
    deliver()

    assert books.payment(payment.id).state == "succeeded"
    assert books.balance("receivable") == Decimal("-12.50")


def test_disputed_payment_is_posted_as_a_dispute_until_it_is_won(add_method, pay, work, books, simulator, deliver):
    payment, job = pay(method_id=add_method("pm_test_disputed"))
    work(job)
    assert books.payment(payment.id).state == "disputed"
    assert books.balance("disputes") == Decimal("12.50")

    simulator.dispute(books.payment(payment.id).gateway_payment_id, Decimal(0))
    deliver()

    assert books.payment(payment.id).state == "succeeded"
    assert books.balance("disputes") == 0


def test_dispute_that_is_lost_is_a_bad_debt(add_method, pay, work, books):
    payment, job = pay(method_id=add_method("pm_test_dispute_lost"))

    work(job)

    lost = books.payment(payment.id)
    assert (lost.state, lost.disputed_amount, lost.lost_amount) == ("disputed", 0, Decimal("12.50"))
    assert (books.balance("disputes"), books.balance("bad_debt")) == (0, Decimal("12.50"))


#: What the bank has taken back and what it keeps, one after the other, and the state afterwards.
DISPUTES = {
    "a part, and then all": [("5.00", "0", "disputed"), ("12.50", "0", "disputed"), ("0", "0", "succeeded")],
    "two, of which one is lost": [("12.50", "0", "disputed"), ("2.50", "10.00", "disputed"), ("0", "10", "disputed")],
    "again after it was won": [("12.50", "0", "disputed"), ("0", "0", "succeeded"), ("3.00", "0", "disputed"),
                               ("0", "3.00", "disputed")],
    "won on appeal": [("0", "12.50", "disputed"), ("12.50", "0", "disputed"), ("0", "0", "succeeded")],
}  # fmt: skip


@pytest.mark.parametrize("name", DISPUTES)
def test_ledger_follows_the_disputes_of_a_payment(pay, work, books, simulator, deliver, database, customer, name):
    payment, job = pay()
    work(job)
    for disputed, lost, state in DISPUTES[name]:
        # When the bank changes what it has taken back, and the event arrives twice
        simulator.dispute(books.payment(payment.id).gateway_payment_id, Decimal(disputed), lost=Decimal(lost))
        deliver()
        simulator.dispute(books.payment(payment.id).gateway_payment_id, Decimal(disputed), lost=Decimal(lost))
        deliver()

        # Then the ledger says the same
        assert books.payment(payment.id).state == state
        assert (books.balance("disputes"), books.balance("bad_debt")) == (Decimal(disputed), Decimal(lost))
        assert books.balance("gateway") == Decimal("12.14") - Decimal(disputed) - Decimal(lost)
        with database.transaction() as connection:
            assert audit(connection, customer) == []


def test_dispute_of_a_refunded_payment_is_posted(pay, work, books, simulator, deliver, database):
    # Given a payment of which all was given back
    payment, job = pay()
    work(job)
    with database.transaction() as connection:
        _, refund_job = refunds.new_refund(connection, payment)
    work(refund_job)
    charge_id = books.payment(payment.id).gateway_payment_id

    for disputed, state in (("12.50", "disputed"), ("0", "refunded")):
        simulator.dispute(charge_id, Decimal(disputed))
        deliver()
        assert (books.payment(payment.id).state, books.balance("disputes")) == (state, Decimal(disputed))


def test_answer_that_is_older_than_what_was_applied_changes_no_dispute(pay, work, books, database):
    payment, job = pay()
    work(job)
    paid = books.payment(payment.id)
    old = PaymentOutcome("succeeded", paid.gateway_payment_id, paid.gateway_time - timedelta(seconds=1),
                         disputed=Decimal("12.50"))  # fmt: skip

    with database.transaction() as connection:
        settlement.settle(connection, payment, old)

    assert (books.payment(payment.id).state, books.balance("disputes")) == ("succeeded", 0)


def test_manual_payment_stays_pending(pay, work, books):
    payment, job = pay(gateway="manual")

    assert work(job)["state"] == "pending"
    assert books.payment(payment.id).state == "pending"


def test_amounts_of_currencies_without_and_with_three_digits_are_charged_as_they_are(pay, work, books):
    for amount, currency in (("1900", "JPY"), ("1.234", "KWD")):
        _, job = pay(amount, currency=currency)
        work(job)
        assert books.balance("receivable", currency) == -Decimal(amount)


def test_payment_whose_event_was_lost_is_checked(add_method, pay, work, books, simulator, database):
    # Given a payment that its customer has confirmed, and no event
    payment, job = pay(method_id=add_method("pm_test_action_required"))
    work(job)
    simulator.answer(books.payment(payment.id).gateway_payment_id, confirmed=True)

    # When the job runs that was planned for that
    with database.connection() as connection:
        [check] = jobs.list_jobs(connection, Access.account(payment.account_id), kind="payment.check")
    work(NewJob(check.kind, check.account_id, check.arguments, id=check.id))

    # Then the payment has succeeded
    assert check.state == "scheduled"
    assert books.payment(payment.id).state == "succeeded"


def test_operator_decides_about_a_charge_that_nobody_can_look_up(pay, begin, work, books, database):
    # Given a charge whose outcome is unknown, and operators who found out
    for state, outcome, expected in [
        ("done", '{"id": "ch_found"}', ("succeeded", "ch_found")),
        ("failed", '{"code": "effect_failed", "message": "No effect."}', ("failed", None)),
    ]:
        payment, job = pay()
        attempt = begin(job)
        with database.transaction() as connection:
            request = {"payment": payment.id, "amount": "12.50", "currency": "EUR", "method": None}
            effects.declare(connection, attempt.job, "charge", request, key=payment.id)
            column = "result" if state == "done" else "error"
            connection.execute(
                f"UPDATE effects SET state = %s, {column} = %s WHERE job_id = %s", (state, outcome, job.id)
            )

        # When the job runs again
        work(job)

        # Then the payment is what they said
        settled = books.payment(payment.id)
        assert (settled.state, settled.gateway_payment_id) == expected
        assert [each for each in books.charges() if each["idempotency_key"] == payment.id] == []


def test_a_declined_payment_is_one_event(add_method, pay, work, deliver, customer, events_of):
    # Given a payment that was declined
    payment, job = pay("10.00", method_id=add_method("pm_test_declined"))
    work(job)
    # When the gateway's own events arrive, too
    deliver()
    # Then there is one event
    data = {"id": payment.id, "invoice_id": None, "amount": "10.00", "currency": "EUR"}
    assert events_of(customer) == [("payment.failed", data)]

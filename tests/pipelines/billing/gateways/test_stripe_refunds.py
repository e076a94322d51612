"""Refunds at Stripe that are pending, and those that an operator has decided about."""

from decimal import Decimal

import pytest

from models.billing import refunds
from models.jobs import effects
from models.jobs.jobs import NewJob


@pytest.fixture
def unknown_refund(charged, work, begin, database):
    """`unknown_refund(state, outcome)` → a refund whose effect an operator has resolved, and its job."""

    def unknown_refund(state, outcome):
        payment, job = charged()
        work(job)
        with database.transaction() as connection:
            made, refund_job = refunds.new_refund(connection, payment, amount=Decimal("2.50"))
        attempt = begin(refund_job)
        with database.transaction() as connection:
            request = {"refund": made.id, "amount": "2.50", "currency": "EUR"}
            effects.declare(connection, attempt.job, "refund", request, key=made.id)
            column = "result" if state == "done" else "error"
            connection.execute(
                f"UPDATE effects SET state = %s, {column} = %s WHERE job_id = %s", (state, outcome, refund_job.id)
            )
        return made, refund_job

    return unknown_refund


@pytest.mark.parametrize(
    ("state", "outcome", "expected"),
    [("done", '{"id": "re_found"}', ("succeeded", "re_found")),
     ("failed", '{"code": "effect_failed", "message": "No effect."}', ("failed", None))],
)  # fmt: skip
def test_operator_decides_about_a_refund_that_nobody_can_look_up(
    unknown_refund, work, books, server, state, outcome, expected
):
    made, job = unknown_refund(state, outcome)

    work(job)

    settled = books.refund(made.id)
    assert (settled.state, settled.gateway_refund_id) == expected
    assert server.of_type("refund") == []
    assert books.payment(made.payment_id).refunded == (Decimal("2.50") if state == "done" else 0)


@pytest.mark.parametrize(
    ("status", "state"), [("succeeded", "succeeded"), ("failed", "failed"), ("canceled", "failed")]
)
def test_refund_that_is_pending_at_stripe_is_looked_up(charged, work, books, server, database, status, state):
    payment, job = charged("pm_slow_refund")
    work(job)
    with database.transaction() as connection:
        made, refund_job = refunds.new_refund(connection, payment, amount=Decimal("2.50"))
    work(refund_job)
    assert books.refund(made.id).state == "pending"

    [refund] = server.of_type("refund")
    refund["status"] = status
    work(NewJob("refund.check", made.account_id, {"refund_id": made.id}))

    assert books.refund(made.id).state == state
    assert books.payment(payment.id).refunded == (Decimal("2.50") if state == "succeeded" else 0)


def test_pending_refund_of_the_dashboard_is_looked_up_not_made_again(charged, work, books, server, receive, database):
    # Given a refund that was made at Stripe, without our id, and is pending
    payment, job = charged()
    work(job)
    [intent] = server.of_type("payment_intent")
    fields = {"payment_intent": intent["id"], "amount": 500, "currency": "eur", "status": "pending"}
    refund = server.create("re", "refund", fields)
    receive(*server.event("refund.created", refund))
    with database.connection() as connection:
        [made] = refunds.list_of_payment(connection, payment.id, payment.account_id)

    # When its event is lost
    refund["status"] = "succeeded"
    work(NewJob("refund.check", made.account_id, {"refund_id": made.id}))

    assert books.refund(made.id).state == "succeeded"
    assert len(server.of_type("refund")) == 1

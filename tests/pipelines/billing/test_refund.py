"""Refunds that their gateway has not decided."""

from datetime import timedelta
from decimal import Decimal

import pytest

from models.accounts.ownership import Access
from models.billing import refunds
from models.jobs import jobs
from models.jobs.jobs import NewJob
from models.platform.errors import Released
from pipelines.billing.gateways.gateway import GatewayFailed
from pipelines.billing.gateways.simulator import Simulator


@pytest.fixture
def pending(add_method, pay, work, database):
    """A refund that is pending at the simulated gateway."""
    payment, job = pay(method_id=add_method("pm_test_refund_pending"))
    work(job)
    with database.transaction() as connection:
        made, refund_job = refunds.new_refund(connection, payment, amount=Decimal("5.00"))
    assert work(refund_job)["state"] == "pending"
    return made


def test_time_out_after_acceptance_of_a_refund_is_looked_up(add_method, pay, work, books, database):
    # Given a gateway that accepts the refund and does not answer
    payment, job = pay(method_id=add_method("pm_test_refund_timeout"))
    work(job)
    with database.transaction() as connection:
        made, refund_job = refunds.new_refund(connection, payment, amount=Decimal("5.00"))
    with pytest.raises(GatewayFailed):
        work(refund_job)

    work(refund_job)

    assert [charge["returned"] for charge in books.charges()] == [Decimal("5.00")]
    assert books.refund(made.id).state == "succeeded"


def checks_of(database, refund):
    with database.connection() as connection:
        return jobs.list_jobs(connection, Access.account(refund.account_id), kind="refund.check")


def test_pending_refund_is_stored_and_planned_to_be_looked_up(pending, books, database, deliver):
    deliver()

    waiting = books.refund(pending.id)
    assert (waiting.state, waiting.gateway_refund_id is not None) == ("pending", True)
    assert [each.state for each in checks_of(database, pending)] == ["scheduled"]
    assert books.balance("receivable") == Decimal("-12.50")


def test_refund_whose_event_was_lost_is_settled_by_the_look_up(pending, books, database, work):
    [check] = checks_of(database, pending)

    work(NewJob(check.kind, check.account_id, check.arguments, id=check.id))

    assert books.refund(pending.id).state == "succeeded"
    assert books.balance("receivable") == Decimal("-7.50")


@pytest.mark.parametrize(
    ("age", "delay"),
    [(timedelta(minutes=10), 600), (timedelta(hours=6), 10_800), (timedelta(days=30), 86_400)],
)
def test_refund_that_stays_pending_is_looked_up_less_and_less_often(
    pending, books, database, work, monkeypatch, age, delay
):
    monkeypatch.setattr(Simulator, "look_up_refund", lambda self, request: None)
    with database.connection() as connection:
        connection.execute("UPDATE refunds SET created_at = now() - %s WHERE id = %s", (age, pending.id))

    with pytest.raises(Released) as released:
        work(NewJob("refund.check", pending.account_id, {"refund_id": pending.id}))

    assert released.value.delay == pytest.approx(delay, abs=10)
    assert books.refund(pending.id).state == "pending"

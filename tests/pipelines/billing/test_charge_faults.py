"""Workers die at any point of a charge and of a refund: the gateway's own books show each exactly once."""

from dataclasses import dataclass
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from models.billing import invoice_states, refunds
from models.billing.invoice_lines import NewLine
from models.jobs.jobs import NewJob
from models.platform.errors import Conflict
from pipelines.billing import charge, invoicing, refund, webhook_events
from pipelines.billing.gateways.gateway import GatewayFailed
from tests.pipelines.effect_provider import Crash, CrashingDatabase

REPRODUCIBLE = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}

#: Where a worker dies, in the order of an attempt. The first two transactions of an attempt declare the effect and
#: record its outcome.
POINTS = {
    "before declare commit": (0, False),
    "after declare commit": (0, True),
    "before record commit": (1, False),
    "after record commit": (1, True),
    "before the call": None,
    "after the call": None,
    "before the end": None,
    "inside the end": None,
}

FAULTS = st.sampled_from([*POINTS, "events arrive", "customer confirms"])


@dataclass
class DyingGateway:
    """A gateway whose caller dies before or after a call."""

    gateway: object
    point: str

    def __getattr__(self, name):
        return getattr(self.gateway, name)

    def charge(self, request):
        return self._call(self.gateway.charge, request)

    def refund(self, request):
        return self._call(self.gateway.refund, request)

    def _call(self, method, request):
        if self.point == "before the call":
            raise Crash
        try:
            return method(request)
        finally:
            if self.point == "after the call":
                raise Crash


@dataclass
class DyingGateways:
    """The gateways of a worker that dies at a point."""

    gateways: object
    point: str

    def get(self, name):
        return DyingGateway(self.gateways.get(name), self.point)


@pytest.fixture
def die(begin, gateways, database, settle):
    """`die(run, job, point)` begins an attempt and dies there, if the attempt gets that far."""

    def die(run, job, point):
        attempt = begin(job)
        number, committed = POINTS[point] or (-1, False)
        attempt.database = CrashingDatabase(database, number, committed=committed)
        attempt.database.connection = database.connection
        try:
            ending = run(DyingGateways(gateways, point), attempt)
            if point == "inside the end" and ending.record:
                with database.transaction() as connection:
                    ending.record(connection)
                    raise Crash
            raise Crash
        except (Crash, GatewayFailed):
            pass

    return die


@pytest.mark.timeout(900)
@settings(max_examples=60, **REPRODUCIBLE)
@given(
    faults=st.lists(FAULTS, max_size=5),
    card=st.sampled_from(["visa", "declined", "timeout", "duplicate_events", "disputed", "action_required"]),
)
def test_a_payment_is_charged_once_wherever_workers_die(
    add_method, pay, work, die, books, deliver, simulator, faults, card
):
    # Given attempts that end at the drawn points, and events that arrive between them
    payment, job = pay(method_id=add_method(f"pm_test_{card}"))
    for fault in faults:
        if fault == "events arrive":
            deliver()
        elif fault == "customer confirms":
            confirm(books, simulator, payment)
        else:
            die(charge.run, job, fault)

    # When an attempt runs to its end, and everything has arrived
    with_retry(work, job)
    confirm(books, simulator, payment)
    deliver()

    # Then the gateway has one charge, and our books agree with it
    [charged] = [each for each in books.charges() if each["idempotency_key"] == payment.id]
    ours = books.payment(payment.id)
    event(f"{card}: {ours.state}")
    expected = {"declined": "failed", "disputed": "disputed"}.get(card, "succeeded")
    assert (ours.state, charged["state"]) == (expected, "failed" if card == "declined" else "succeeded")
    assert books.posted("payment", payment.id) == (0 if card == "declined" else Decimal("12.50"))
    assert books.event_ids() == []


@pytest.mark.timeout(900)
@settings(max_examples=40, **REPRODUCIBLE)
@given(
    faults=st.lists(st.sampled_from([*POINTS, "events arrive"]), max_size=4),
    card=st.sampled_from(["visa", "refund_fails"]),
)
def test_a_refund_is_made_once_wherever_workers_die(add_method, pay, work, die, books, deliver, database, faults, card):
    # Given a payment, a refund of a part of it, and attempts that end at the drawn points
    payment, job = pay(method_id=add_method(f"pm_test_{card}"))
    work(job)
    with database.transaction() as connection:
        made, refund_job = refunds.new_refund(connection, payment, amount=Decimal("5.00"))
    for fault in faults:
        if fault == "events arrive":
            deliver()
        else:
            die(refund.run, refund_job, fault)

    # When an attempt runs to its end
    with_retry(work, refund_job)
    deliver()

    # Then the gateway gave it back once, or not at all, and we say the same
    [charged] = [each for each in books.charges() if each["idempotency_key"] == payment.id]
    returned = Decimal("5.00") if card == "visa" else 0
    assert charged["returned"] == books.payment(payment.id).refunded == returned
    assert books.refund(made.id).state == ("succeeded" if card == "visa" else "failed")
    assert books.posted("refund", made.id) == returned


def with_retry(work, job: NewJob):
    """Run attempts until one gets an answer, at most two more."""
    for _ in range(3):
        try:
            return work(job)
        except GatewayFailed:
            continue
    raise AssertionError("the gateway did not answer three times")


def confirm(books, simulator, payment):
    """Confirm the payment on the gateway's page, if it waits for that."""
    ours = books.payment(payment.id)
    if ours.state == "requires_action":
        simulator.answer(ours.gateway_payment_id, confirmed=True)


@pytest.mark.parametrize("point", ["before the end", "inside the end"])
@pytest.mark.parametrize("card", ["visa", "declined", "disputed", "timeout"])
def test_an_event_is_applied_once_wherever_its_worker_dies(add_method, pay, die, books, deliver, work, card, point):
    # Given a charge that was accepted, whose worker has died, and an event whose workers die, too
    payment, job = pay(method_id=add_method(f"pm_test_{card}"))
    die(charge.run, job, "after the call")
    for event_id in books.event_ids() * 2:
        die(webhook_events.run, NewJob("gateway.event", "platform", {"gateway": "test", "event_id": event_id}), point)

    # When the event and the job are run to their ends
    deliver()
    with_retry(work, job)

    # Then the payment is settled once
    assert books.payment(payment.id).state == {"declined": "failed", "disputed": "disputed"}.get(card, "succeeded")
    assert books.posted("payment", payment.id) == (0 if card == "declined" else Decimal("12.50"))


def test_payment_of_an_invoice_that_is_voided_while_it_waits_becomes_a_credit(
    add_method, pay, work, books, simulator, deliver, database, customer
):
    # Given a payment that waits for its customer, and an operator who voids the invoice
    with database.transaction() as connection:
        line = NewLine("fee", "A month", Decimal("12.50"))
        invoice = invoicing.issue(connection, customer, reason="subscription", lines=[line])
    payment, job = pay(method_id=add_method("pm_test_action_required"), invoice_id=invoice.id)
    with database.transaction() as connection, pytest.raises(Conflict):
        invoice_states.void(connection, invoice.id, customer)
    work(job)
    with database.transaction() as connection:
        invoice_states.void(connection, invoice.id, customer)

    # When the customer confirms nevertheless
    confirm(books, simulator, payment)
    deliver()

    # Then the money is a credit
    assert books.payment(payment.id).state == "succeeded"
    assert (books.balance("credits"), books.balance("receivable")) == (Decimal("-12.50"), 0)

"""The gateway `stripe` against a local server with Stripe's shapes."""

import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import get_args

import orjson
import pytest
import stripe

from models.billing import billing_details, gateway_events, invoices, payment_methods, refunds
from models.jobs.jobs import NewJob
from models.platform.errors import InvalidRequest
from pipelines.billing import invoicing, webhook_events
from pipelines.billing.gateways import signatures
from pipelines.billing.gateways.gateway import GatewayFailed
from pipelines.billing.gateways.stripe_objects import OVER_DISPUTES, payment_outcome
from tests.pipelines.billing.stripe_server import WEBHOOK_SECRET


def intents(server):
    return [(each["status"], each["amount"]) for each in server.of_type("payment_intent")]


def test_payment_is_an_intent_with_our_id_and_its_fee(charged, work, books, server):
    payment, job = charged()

    assert work(job)["state"] == "succeeded"

    [intent] = server.of_type("payment_intent")
    assert (intent["amount"], intent["currency"], intent["metadata"]["payment"]) == (1250, "eur", payment.id)
    paid = books.payment(payment.id)
    assert (paid.gateway_payment_id, paid.fee) == (intent["id"], Decimal("0.59"))


@pytest.mark.parametrize(
    ("method", "code"), [("pm_declined", "card_declined"), ("pm_insufficient", "insufficient_funds")]
)
def test_declined_payment_fails_with_the_reason_of_the_bank(charged, work, books, method, code):
    payment, job = charged(method)

    assert work(job)["payment_error"]["code"] == code
    assert books.payment(payment.id).state == "failed"


def test_account_without_a_method_is_not_charged(pay, customer, work, server):
    _, job = pay(gateway="stripe")

    assert work(job)["payment_error"]["code"] == "payment_method_missing"
    assert server.calls == []


@pytest.mark.parametrize("fault", ["lost", "unsent", 500, 503, 429, 409, 401, 403])
@pytest.mark.parametrize("method", ["pm_visa", "pm_declined"])
def test_call_without_an_answer_is_looked_up_and_charges_once(charged, work, books, server, fault, method):
    # Given a call whose answer does not arrive, before or after Stripe has accepted it
    payment, job = charged(method)
    server.faults.append(fault)
    with pytest.raises(GatewayFailed):
        work(job)

    # When the next attempt runs
    work(job)

    # Then there is one intent
    assert len(intents(server)) == 1
    assert books.payment(payment.id).state == ("succeeded" if method == "pm_visa" else "failed")


def test_payment_that_the_customer_must_confirm_gets_a_page(charged, work, books, server, receive):
    payment, job = charged("pm_authenticate")

    assert work(job)["state"] == "requires_action"
    [intent] = server.of_type("payment_intent")
    assert books.payment(payment.id).action_url == f"https://bank.example/{intent['id']}"

    server.confirm_by_customer(intent["id"])
    assert receive(*server.event("payment_intent.succeeded", intent)) == "applied"
    assert books.payment(payment.id).state == "succeeded"


@pytest.mark.parametrize("faults", [["lost"], ["unsent"], [200, "lost"]])
def test_confirmation_page_survives_a_lost_answer(charged, work, books, server, faults):
    payment, job = charged("pm_authenticate")
    server.faults.extend(faults if faults[0] != 200 else ["lost", "lost"])
    for _ in range(3):
        try:
            work(job)
            break
        except GatewayFailed:
            continue

    assert len(intents(server)) == 1
    assert books.payment(payment.id).state == "requires_action"


def test_overdue_confirmation_is_cancelled(charged, work, books, server, database):
    payment, job = charged("pm_authenticate")
    work(job)
    with database.connection() as connection:
        connection.execute("UPDATE payments SET created_at = now() - interval '1 day' WHERE id = %s", (payment.id,))

    work(NewJob("payment.check", payment.account_id, {"payment_id": payment.id}))

    assert books.payment(payment.id).error["code"] == "action_failed"
    assert [status for status, _ in intents(server)] == ["canceled"]


def test_refund_is_made_once_and_looked_up(charged, work, books, server, database):
    payment, job = charged()
    work(job)
    with database.transaction() as connection:
        made, refund_job = refunds.new_refund(connection, payment, amount=Decimal("2.50"))
    server.faults.append("lost")
    with pytest.raises(GatewayFailed):
        work(refund_job)

    work(refund_job)

    [refund] = server.of_type("refund")
    assert (refund["amount"], refund["metadata"]["refund"]) == (250, made.id)
    assert books.refund(made.id).state == "succeeded"
    assert books.posted("refund", made.id) == Decimal("2.50")


def test_refund_on_the_dashboard_is_recorded_once(charged, work, books, server, receive):
    payment, job = charged()
    work(job)
    [intent] = server.of_type("payment_intent")
    fields = {"payment_intent": intent["id"], "amount": 1250, "currency": "eur", "status": "succeeded",
              "failure_reason": None}  # fmt: skip
    refund = server.create("re", "refund", fields)

    for _ in range(2):
        assert receive(*server.event("refund.created", refund)) == "applied"

    refunded = books.payment(payment.id)
    assert (refunded.state, refunded.refunded) == ("refunded", Decimal("12.50"))
    assert books.balance("gateway") == Decimal("-0.59")


def test_refund_on_the_dashboard_has_a_credit_note(charged, work, books, server, receive, database, customer):
    # Given a paid invoice
    with database.transaction() as connection:
        line = invoicing.NewLine("fee", "A month", Decimal("12.50"))
        invoice = invoicing.issue(connection, customer, reason="subscription", lines=[line])
    payment, job = charged(invoice_id=invoice.id)
    work(job)

    # When a part of it is refunded at Stripe
    [intent] = server.of_type("payment_intent")
    fields = {"payment_intent": intent["id"], "amount": 500, "currency": "eur", "status": "succeeded"}
    receive(*server.event("refund.created", server.create("re", "refund", fields)))

    # Then a credit note says so, and nothing is owed
    with database.connection() as connection:
        [made] = refunds.list_of_payment(connection, payment.id, customer)
        assert invoices.read(connection, invoice.id, customer).credited == Decimal("5.00")
    assert (made.state, made.credit_note_id is not None, books.balance("receivable")) == ("succeeded", True, 0)


def test_dispute_is_posted_until_it_is_won(charged, work, books, server, receive):
    payment, job = charged()
    work(job)
    [intent] = server.of_type("payment_intent")

    dispute = server.dispute(intent["id"])
    receive(*server.event("charge.dispute.created", dispute))
    assert (books.payment(payment.id).state, books.balance("disputes")) == ("disputed", Decimal("12.50"))

    dispute["status"] = "won"
    receive(*server.event("charge.dispute.closed", dispute))
    assert (books.payment(payment.id).state, books.balance("disputes")) == ("succeeded", 0)


@pytest.mark.parametrize(
    ("statuses", "disputed", "lost"),
    [(["lost"], "0", "5"), (["needs_response", "lost"], "5", "5"), (["won", "under_review"], "5", "0"),
     (["warning_needs_response"], "0", "0"), (["warning_closed", "prevented"], "0", "0"),
     (["appeal_under_review"], "5", "0"), (["of_the_future"], "5", "0")],
)  # fmt: skip
def test_disputes_of_parts_count_by_their_states(charged, work, books, server, receive, statuses, disputed, lost):
    payment, job = charged()
    work(job)
    [intent] = server.of_type("payment_intent")

    for status in statuses:
        dispute = server.dispute(intent["id"], status, amount=500)
    receive(*server.event("charge.dispute.updated", dispute))

    assert (books.balance("disputes"), books.balance("bad_debt")) == (Decimal(disputed), Decimal(lost))
    assert books.payment(payment.id).state == ("disputed" if disputed != "0" or lost != "0" else "succeeded")


def test_all_states_of_a_dispute_at_stripe_are_known():
    states = states_of(stripe.Dispute)

    assert states > OVER_DISPUTES
    assert states - OVER_DISPUTES - {"lost"} == {
        "needs_response", "under_review", "appeal_needs_response", "appeal_under_review",
    }  # fmt: skip


def test_all_states_of_an_intent_at_stripe_have_an_outcome():
    outcomes = {
        status: payment_outcome({"id": "pi_1", "status": status, "currency": "eur"}, datetime.now(UTC), []).state
        for status in states_of(stripe.PaymentIntent)
    }

    assert outcomes == {
        "succeeded": "succeeded", "requires_action": "requires_action", "canceled": "failed",
        "requires_payment_method": "failed", "processing": "pending", "requires_capture": "pending",
        "requires_confirmation": "pending",
    }  # fmt: skip


def states_of(kind):
    """Return the states of a type of object by Stripe's own library."""
    states, _ = get_args(kind.__annotations__["status"])
    return set(get_args(states))


def test_events_out_of_order_apply_the_present_state(charged, work, books, server, receive):
    payment, job = charged("pm_processing")
    work(job)
    [intent] = server.of_type("payment_intent")
    assert books.payment(payment.id).state == "pending"
    early = server.event("payment_intent.processing", dict(intent))
    server.confirm_by_customer(intent["id"])

    receive(*server.event("payment_intent.succeeded", intent))
    receive(*early)

    assert books.payment(payment.id).state == "succeeded"
    assert books.balance("receivable") == Decimal("-12.50")


def test_method_is_added_on_the_page_and_removed(gateway, customer, server, receive, database):
    at_stripe = gateway.create_customer(customer, "A name")
    url = gateway.set_up_method(customer, at_stripe, return_url="https://app.example/back").url
    [session] = server.of_type("checkout.session")
    assert (url, session["customer"], session["success_url"]) == (session["url"], at_stripe, "https://app.example/back")
    server.add_method("pm_new", at_stripe)
    session["setup_intent"] = server.create("seti", "setup_intent", {"payment_method": "pm_new"})["id"]

    assert receive(*server.event("checkout.session.completed", session)) == "applied"
    assert receive(*server.event("payment_method.attached", server.objects["pm_new"])) == "applied"
    with database.connection() as connection:
        [method] = payment_methods.list_methods(connection, customer)
    assert (method.gateway_method_id, method.label) == ("pm_new", "Visa 4242")

    gateway.detach_method("pm_new")
    assert receive(*server.event("payment_method.detached", server.objects["pm_new"])) == "applied"
    with database.connection() as connection:
        assert payment_methods.list_methods(connection, customer) == []


def test_unknown_events_and_those_about_nothing_of_ours_are_ignored(server, receive):
    assert receive(*server.event("invoice.created", {"id": "in_1", "object": "invoice"})) == "ignored"
    assert receive(*server.event("payment_intent.created", {"id": "pi_gone", "object": "payment_intent"})) == "ignored"
    assert receive(*server.event("charge.failed", {"id": "ch_1", "object": "charge"})) == "ignored"


def test_portal_is_a_page_of_stripe(gateway, customer):
    at_stripe = gateway.create_customer(customer, "")

    assert gateway.create_customer(customer, "") == at_stripe
    assert gateway.portal(at_stripe, return_url="https://app.example").startswith("https://portal.example/")


def test_refused_page_is_a_failure_of_the_gateway(gateway):
    with pytest.raises(GatewayFailed):
        gateway.portal("", return_url="https://app.example")
    with pytest.raises(GatewayFailed):
        gateway.set_up_method("acct_1", "cus_gone", return_url="https://app.example")


@pytest.mark.parametrize("secret", ["whsec_other_secret", WEBHOOK_SECRET])
@pytest.mark.parametrize("age", [0, 301])
def test_only_recent_signatures_of_stripe_are_accepted(gateway, secret, age):
    body = b'{"id": "evt_1", "type": "charge.updated"}'
    headers = {"stripe-signature": signatures.sign(body, secret, int(time.time()) - age)}
    if secret == WEBHOOK_SECRET and not age:
        assert gateway.verify(body, headers).event_id == "evt_1"
        return

    with pytest.raises(InvalidRequest):
        gateway.verify(body, headers)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"{}", b'{"id": 1}', b"null"])
def test_signed_nonsense_is_rejected(gateway, body):
    with pytest.raises(InvalidRequest):
        gateway.verify(body, {"stripe-signature": signatures.sign(body, WEBHOOK_SECRET)})


def test_payload_of_an_event_is_never_trusted(charged, work, books, server, receive):
    # Given an event that says that a declined payment has succeeded
    payment, job = charged("pm_declined")
    work(job)
    [intent] = server.of_type("payment_intent")

    receive(*server.event("payment_intent.succeeded", {**intent, "status": "succeeded"}))

    assert books.payment(payment.id).state == "failed"


def test_event_of_a_payment_of_another_gateway_is_ignored(charged, pay, server, receive, books):
    """Who can write metadata at Stripe cannot settle a payment of the simulated gateway."""
    payment, _ = pay()
    charged()
    intent = server.create("pi", "payment_intent", {"status": "succeeded", "amount": 1, "currency": "eur",
                                                    "customer": None, "latest_charge": None,
                                                    "metadata": {"payment": payment.id}})  # fmt: skip

    assert receive(*server.event("payment_intent.succeeded", intent)) == "ignored"
    assert books.payment(payment.id).state == "pending"


def test_apply_is_idempotent(gateway, charged, work, server, database, books):
    payment, job = charged()
    work(job)
    [intent] = server.of_type("payment_intent")
    payload = orjson.dumps({"type": "charge.updated", "data": {"object": intent}}).decode()
    event = gateway_events.GatewayEvent("stripe", "evt_x", "t", payload, "received", None, payment.created_at, None)

    for _ in range(3):
        with database.transaction() as connection:
            webhook_events.apply(connection, event, gateway.fetch(payload))

    assert books.balance("receivable") == Decimal("-12.50")
    with database.connection() as connection:
        assert billing_details.read(connection, payment.account_id).gateway_customers.keys() == {"stripe"}

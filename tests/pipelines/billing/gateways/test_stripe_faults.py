"""Stripe at its worst: saved errors, forgotten keys, concurrent calls, and events that are faster than our commits."""

import threading
from decimal import Decimal

import orjson
import pytest
import stripe
from stripe.params.checkout import SessionCreateParams

from models.billing import payment_methods
from models.jobs import effects
from models.jobs.jobs import NewJob
from models.platform.errors import EffectUnknown, Released
from pipelines.billing.gateways.gateway import ChargeRequest, GatewayFailed
from tests.pipelines.billing.stripe_state import PARAMETERS

AGE_EFFECTS = "UPDATE effects SET created_at = now() - interval '2 days' WHERE job_id = %s"
AGE_PAYMENT = "UPDATE payments SET created_at = now() - interval '2 days' WHERE id = %s"


@pytest.fixture
def pass_two_days(database, server):
    """`pass_two_days(payment)` ages a payment and its call, and forgets the idempotency keys at Stripe."""

    def pass_two_days(payment):
        with database.transaction() as connection:
            connection.execute(AGE_EFFECTS, (payment.job_id,))
            connection.execute(AGE_PAYMENT, (payment.id,))
        for intent in server.of_type("payment_intent"):
            intent["created"] -= 2 * 86_400
        server.forget_keys()

    return pass_two_days


def intents(server):
    return [each["status"] for each in server.of_type("payment_intent")]


def without_id(item):
    return {name: value for name, value in item.items() if name != "id"}


def effect_of(database, payment):
    with database.connection() as connection:
        return effects.read(connection, payment.job_id, "charge").state


def test_charge_that_was_accepted_two_days_ago_is_found_though_its_key_was_forgotten(
    charged, work, books, server, pass_two_days
):
    payment, job = charged()
    server.faults.append("lost")
    with pytest.raises(GatewayFailed):
        work(job)

    pass_two_days(payment)
    work(job)

    assert intents(server) == ["succeeded"]
    assert books.payment(payment.id).state == "succeeded"


def test_charge_that_is_not_found_after_two_days_is_left_to_an_operator(charged, work, books, server, pass_two_days):
    payment, job = charged()
    server.faults.append("unsent")
    with pytest.raises(GatewayFailed):
        work(job)

    pass_two_days(payment)
    with pytest.raises(EffectUnknown):
        work(job)

    assert intents(server) == []
    assert books.payment(payment.id).state == "pending"


@pytest.mark.parametrize("method", ["pm_visa", "pm_declined"])
def test_error_of_stripe_after_it_has_accepted_is_looked_up(charged, work, books, server, method):
    # Given a call that had its effect, for whose key Stripe has saved a 500
    payment, job = charged(method)
    server.faults.append("accepted")
    with pytest.raises(GatewayFailed):
        work(job)

    work(job)

    assert len(intents(server)) == 1
    assert books.payment(payment.id).state == ("succeeded" if method == "pm_visa" else "failed")


@pytest.mark.parametrize(
    ("method", "state"), [("pm_visa", "succeeded"), ("pm_declined", "failed"), ("pm_authenticate", "requires_action")]
)
def test_intent_that_was_created_without_being_confirmed_is_confirmed(charged, work, books, server, method, state):
    payment, job = charged(method)
    server.faults.append("created")
    with pytest.raises(GatewayFailed):
        work(job)
    assert intents(server) == ["requires_confirmation"]

    work(job)

    assert len(intents(server)) == 1
    assert books.payment(payment.id).state == state


def test_two_calls_at_the_same_time_make_one_intent(charged, gateway, database, server):
    # Given a call that Stripe is executing
    payment, _ = charged()
    with database.connection() as connection:
        customer = payment_methods.read_customer(connection, payment.account_id, "stripe")
    request = ChargeRequest(
        payment.id, payment.account_id, payment.amount, payment.currency, customer, "pm_visa", payment.created_at
    )
    outcomes = []
    server.faults.append("held")
    first = threading.Thread(target=lambda: outcomes.append(gateway.charge(request)))
    first.start()
    assert server.held.wait(10)

    # When another worker makes it
    with pytest.raises(GatewayFailed, match="409"):
        gateway.charge(request)
    server.release.set()
    first.join()

    # Then a later call has the answer of the first
    assert [outcomes[0].state, gateway.charge(request).state] == ["succeeded", "succeeded"]
    assert intents(server) == ["succeeded"]


def test_key_with_other_parameters_is_a_failure_of_the_gateway_and_charges_nothing(charged, gateway, database, server):
    payment, _ = charged()
    with database.connection() as connection:
        customer = payment_methods.read_customer(connection, payment.account_id, "stripe")
    for amount in ("12.50", "13.00"):
        request = ChargeRequest(
            payment.id, payment.account_id, Decimal(amount), "EUR", customer, "pm_visa", payment.created_at
        )
        if amount == "12.50":
            gateway.charge(request)
            continue
        with pytest.raises(GatewayFailed, match="IdempotencyError"):
            gateway.charge(request)

    assert intents(server) == ["succeeded"]


@pytest.mark.parametrize("method", ["pm_visa", "pm_declined"])
def test_call_whose_outcome_an_event_has_told_is_not_left_to_operators(
    charged, work, books, server, receive, database, method
):
    # Given a call whose answer was lost, and its event
    payment, job = charged(method)
    server.faults.append("lost")
    with pytest.raises(GatewayFailed):
        work(job)
    receive(*server.event(*server.sent[-1]))

    # When the job's next attempt ends
    work(job)

    # Then the effect is known, too
    assert effect_of(database, payment) == "done"
    assert books.payment(payment.id).state == ("succeeded" if method == "pm_visa" else "failed")


def test_event_of_a_payment_that_needs_its_customer_does_not_fail_it_before_the_page_is_there(
    charged, work, books, server, receive
):
    # Given an event about the first, declined charge that is applied before the second call is made
    payment, job = charged("pm_authenticate")
    server.faults.append("lost")
    with pytest.raises(GatewayFailed):
        work(job)
    receive(*server.event(*server.sent[-1]))
    assert books.payment(payment.id).state == "pending"

    # When the job continues
    work(job)

    # Then the customer gets the page
    assert books.payment(payment.id).state == "requires_action"
    assert books.payment(payment.id).action_url


def test_check_stores_the_page_of_a_payment_that_has_come_to_wait(charged, work, books, server, database):
    payment, job = charged("pm_authenticate")
    server.faults.append("lost")
    with pytest.raises(GatewayFailed):
        work(job)

    with pytest.raises(Released):
        work(NewJob("payment.check", payment.account_id, {"payment_id": payment.id}))

    assert books.payment(payment.id).action_url
    assert books.payment(payment.id).state == "requires_action"


def test_customer_who_fails_the_authentication_is_not_charged(charged, work, books, server, receive):
    payment, job = charged("pm_authenticate")
    work(job)
    [intent] = server.of_type("payment_intent")

    server.reject_by_customer(intent["id"])
    receive(*server.event("payment_intent.payment_failed", intent))

    failed = books.payment(payment.id)
    assert (failed.state, failed.error["code"]) == ("failed", "payment_intent_authentication_failure")


def test_state_that_this_version_does_not_know_is_no_failure(charged, work, books, server, receive):
    """A failed payment would be tried again: the customer might pay twice."""
    payment, job = charged("pm_processing")
    work(job)
    [intent] = server.of_type("payment_intent")
    intent["status"] = "requires_reflection"

    receive(*server.event("payment_intent.updated", intent))

    assert books.payment(payment.id).state == "pending"


def test_copy_of_an_intent_does_not_settle_the_payment_of_the_original(charged, work, books, server, receive):
    payment, job = charged("pm_declined")
    work(job)
    [intent] = server.of_type("payment_intent")
    copy = server.create("pi", "payment_intent", {**without_id(intent), "amount": 1, "status": "succeeded"})

    assert receive(*server.event("payment_intent.succeeded", copy)) == "ignored"
    assert books.payment(payment.id).state == "failed"


def test_method_of_another_installations_account_is_ignored(gateway, server, receive):
    # Given two installations that share an account at Stripe
    customer = gateway.create_customer("acct_elsewhere", "")
    server.add_method("pm_foreign", customer)

    assert receive(*server.event("payment_method.attached", server.objects["pm_foreign"])) == "ignored"


@pytest.mark.parametrize(
    "body",
    [{"object": "v2.core.event", "related_object": {"id": "x"}}, {"object": "event"}, {"object": "event", "data": {}},
     {"object": "event", "data": {"object": None}}],
)  # fmt: skip
def test_event_without_an_object_is_ignored(gateway, body):
    assert gateway.fetch(orjson.dumps({"id": "evt_1", "type": "v1.billing.meter.error", **body}).decode()) is None


def test_event_of_live_objects_changes_nothing_with_a_test_key(charged, work, books, server, receive):
    """Stripe does not show a test key the objects of the other mode."""
    payment, job = charged("pm_processing")
    work(job)
    live = {"id": "pi_live", "object": "payment_intent", "metadata": {"payment": payment.id}, "status": "succeeded"}

    assert receive(*server.event("payment_intent.succeeded", live, livemode=True)) == "ignored"
    assert books.payment(payment.id).state == "pending"


def test_customer_who_has_changed_the_name_since_a_lost_answer_is_created(gateway, customer, server):
    server.faults.append("lost")
    with pytest.raises(GatewayFailed):
        gateway.create_customer(customer, "Old name")

    assert gateway.create_customer(customer, "New name").startswith("cus_")


def test_look_up_reads_all_pages(charged, work, books, server, customer):
    # Given an account with more intents and refunds than a page has
    server.page_size = 2
    payment, job = charged()
    server.faults.append("lost")
    with pytest.raises(GatewayFailed):
        work(job)
    [intent] = server.of_type("payment_intent")
    for _ in range(5):
        server.create("pi", "payment_intent", {**without_id(intent), "metadata": {}})

    work(job)

    assert books.payment(payment.id).gateway_payment_id == intent["id"]


#: Stripe's own types of the parameters of each call.
OFFICIAL = {
    "POST /v1/payment_intents": stripe.params.PaymentIntentCreateParams,
    "GET /v1/payment_intents": stripe.params.PaymentIntentListParams,
    "GET /v1/payment_intents/ID": stripe.params.PaymentIntentRetrieveParams,
    "POST /v1/payment_intents/ID/confirm": stripe.params.PaymentIntentConfirmParams,
    "POST /v1/payment_intents/ID/cancel": stripe.params.PaymentIntentCancelParams,
    "POST /v1/refunds": stripe.params.RefundCreateParams,
    "GET /v1/refunds": stripe.params.RefundListParams,
    "GET /v1/refunds/ID": stripe.params.RefundRetrieveParams,
    "GET /v1/disputes": stripe.params.DisputeListParams,
    "POST /v1/customers": stripe.params.CustomerCreateParams,
    "GET /v1/customers/ID": stripe.params.CustomerRetrieveParams,
    "DELETE /v1/customers/ID": stripe.params.CustomerDeleteParams,
    "POST /v1/checkout/sessions": SessionCreateParams,
    "GET /v1/checkout/sessions/ID": stripe.params.checkout.SessionRetrieveParams,
    "GET /v1/payment_methods/ID": stripe.params.PaymentMethodRetrieveParams,
    "POST /v1/payment_methods/ID/detach": stripe.params.PaymentMethodDetachParams,
    "POST /v1/billing_portal/sessions": stripe.params.billing_portal.SessionCreateParams,
}


@pytest.mark.parametrize("call", PARAMETERS)
def test_parameters_that_the_local_server_takes_are_those_of_stripe(call):
    assert PARAMETERS[call] <= set(OFFICIAL[call].__annotations__)

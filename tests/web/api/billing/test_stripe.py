"""A server with the gateway `stripe`: pages of Stripe, and its webhooks, over HTTP."""

import pytest

from bench.harness.processes import changed
from models.billing import billing_details, gateway_events, payment_methods
from models.platform.ids import new_id
from pipelines.inference.registry import model_name
from tests.pipelines.billing.stripe_server import API_KEY, WEBHOOK_SECRET, run_stripe
from tests.web.api_client import app_client, assert_error

INSERT_PRICE = """
INSERT INTO prices (id, model, currency, input, cached_input, output, valid_from)
VALUES (%s, %s, 'DKK', 1, 1, 1, '2026-01-01')
"""


@pytest.fixture(scope="module")
def stripe():
    """The state and the URL of a local Stripe."""
    with run_stripe() as running:
        yield running


@pytest.fixture(scope="module")
def api(settings, stripe):
    """A client of the application with the gateway `stripe`."""
    settings = changed(
        settings,
        gateway="stripe",
        stripe_secret_key=API_KEY,
        stripe_webhook_secret=WEBHOOK_SECRET,
        stripe_api_base=stripe[1],
    )
    with app_client(settings) as client:
        yield client


def test_method_is_added_on_a_page_of_stripe_for_the_customer_of_the_account(user, stripe):
    answers = [user.request("POST", "/billing/payment_methods", json={}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["url"].startswith("https://checkout.example/")
    customers = stripe[0].of_type("customer")
    assert [each["metadata"]["account"] for each in customers] == [user.caller.account_id]


def test_customer_who_is_missing_at_stripe_is_created_again(user, stripe, database):
    # Given a customer of the test mode with a method, and a key of the live mode
    account_id = user.caller.account_id
    user.request("POST", "/billing/payment_methods", json={})
    with database.transaction() as connection:
        payment_methods.add(connection, account_id, gateway="stripe", gateway_method_id=new_id("pm"), label="Visa")
        missing = payment_methods.read_customer(connection, account_id, "stripe")
    stripe[0].objects.pop(missing)

    # When a method is added, twice
    answers = [user.request("POST", "/billing/payment_methods", json={}) for _ in range(2)]

    # Then there is one new customer, and the method of the old one is not charged
    assert [answer.status_code for answer in answers] == [202, 202]
    [created] = [each for each in stripe[0].of_type("customer") if each["metadata"]["account"] == account_id]
    with database.connection() as connection:
        assert payment_methods.read_customer(connection, account_id, "stripe") == created["id"] != missing
        assert payment_methods.list_methods(connection, account_id) == []


def test_names_of_simulated_methods_are_rejected(user):
    answer = user.request("POST", "/billing/payment_methods", json={"method": "pm_test_visa"})

    assert_error(answer, 400, param="method")


def test_portal_is_a_page_of_stripe(user):
    answer = user.request("POST", "/billing/portal", json={"return_url": "https://app.example"})

    assert answer.json()["url"].startswith("https://portal.example/")


def test_outage_of_stripe_is_a_503(user, stripe):
    stripe[0].faults.append(500)

    assert user.request("POST", "/billing/portal", json={}).status_code == 503
    assert user.request("POST", "/billing/portal", json={}).status_code == 200


def test_events_of_stripe_are_stored_and_forged_ones_are_not(api, stripe, database):
    body, headers = stripe[0].event("payment_intent.succeeded", {"id": "pi_1", "object": "payment_intent"})

    accepted = api.post("/webhooks/stripe", content=body, headers=headers)
    forged = api.post("/webhooks/stripe", content=body.replace(b"pi_1", b"pi_2"), headers=headers)

    assert (accepted.status_code, accepted.json()) == (200, {"received": True})
    assert_error(forged, 400, code="invalid_signature")
    with database.connection() as connection:
        stored = [each.payload for each in gateway_events.list_events(connection) if each.gateway == "stripe"]
    assert body.decode() in stored


def test_simulated_gateway_is_closed(api):
    assert_error(api.post("/webhooks/test", content=b"{}", headers={"content-type": "application/json"}), 404)
    assert_error(api.get("/billing/simulator/charges/ch_1"), 404)


def test_account_without_a_payment_method_pays_in_advance(user, settings, database):
    price_id = new_id("price")
    with database.transaction() as connection:
        connection.execute(INSERT_PRICE, (price_id, model_name(settings)))
        billing_details.ensure(connection, user.caller.account_id, "DKK")
    body = {"input": "x", "background": True, "max_output_tokens": 16}
    try:
        # Given an account that could not pay an invoice
        assert_error(user.request("POST", "/v1/responses", json=body), 402, code="insufficient_credits")

        # When it has a payment method
        with database.transaction() as connection:
            payment_methods.add(
                connection, user.caller.account_id, gateway="stripe", gateway_method_id=new_id("pm"), label="Visa"
            )

        # Then it may pay later
        assert user.request("POST", "/v1/responses", json=body).status_code == 200
    finally:
        with database.connection() as connection:
            connection.execute("DELETE FROM prices WHERE id = %s", (price_id,))

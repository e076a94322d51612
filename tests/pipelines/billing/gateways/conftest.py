"""Fixtures of the gateway `stripe` at a local server."""

import pytest

from models.billing import gateway_events, payment_methods
from models.jobs.jobs import NewJob
from pipelines.billing import gateway_notices
from pipelines.billing.gateways.registry import Gateways
from tests.pipelines.billing.stripe_server import API_KEY, WEBHOOK_SECRET, run_stripe


@pytest.fixture
def local():
    """The state and the URL of the local server."""
    with run_stripe() as running:
        yield running


@pytest.fixture
def server(local):
    """The state of the local server."""
    return local[0]


@pytest.fixture
def gateways(settings, database, local):
    """Gateways with Stripe at the local server."""
    changes = {"gateway": "stripe", "stripe_secret_key": API_KEY, "stripe_webhook_secret": WEBHOOK_SECRET,
               "stripe_api_base": local[1]}  # fmt: skip
    return Gateways(settings.model_copy(update=changes), database)


@pytest.fixture
def gateway(gateways):
    """The gateway."""
    return gateways.get("stripe")


@pytest.fixture
def charged(gateway, database, customer, pay):
    """`charged("pm_visa")` → a pending payment with this method at Stripe, and its job."""

    def charged(method="pm_visa", invoice_id=None):
        at_stripe = gateway.create_customer(customer, "")
        with database.transaction() as connection:
            payment_methods.store_customer(connection, customer, "stripe", at_stripe)
            connection.execute("DELETE FROM payment_methods WHERE gateway_method_id = %s", (method,))
            payment_methods.add(connection, customer, gateway="stripe", gateway_method_id=method, label="Visa 4242")
        return pay(gateway="stripe", invoice_id=invoice_id)

    return charged


@pytest.fixture
def receive(gateway, database, work):
    """`receive(body, headers)` verifies and applies an event. Returns its state."""

    def receive(body, headers):
        notice = gateway.verify(body, headers)
        with database.transaction() as connection:
            gateway_notices.accept(connection, "stripe", notice, body.decode())
        work(NewJob("gateway.event", "platform", {"gateway": "stripe", "event_id": notice.event_id}))
        with database.connection() as connection:
            state = gateway_events.read(connection, "stripe", notice.event_id).state
            connection.execute("DELETE FROM gateway_events WHERE event_id = %s", (notice.event_id,))
        return state

    return receive

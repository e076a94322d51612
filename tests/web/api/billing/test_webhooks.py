"""`POST /webhooks/{gateway}`: events that a gateway has signed are stored once; others are rejected."""

import time

import orjson
import pytest

from models.billing import gateway_events
from models.platform.ids import new_id
from pipelines.billing.gateways import signatures
from pipelines.billing.gateways.simulator import SIGNATURE_HEADER
from tests.web.api_client import assert_error

HEADERS = {"content-type": "application/json"}


@pytest.fixture
def event():
    """The body of an event about nothing of ours."""
    return orjson.dumps({"id": new_id("evt"), "type": "charge.succeeded", "object": "ch_none"})


@pytest.fixture
def send(api, simulator):
    """`send(body, at=…)` posts an event that is signed then, or with the signature given."""

    def send(body, *, at=None, signature=None, path="/webhooks/test"):
        signed = signatures.sign(body, simulator._secret, at) if signature is None else signature
        return api.post(path, content=body, headers={**HEADERS, SIGNATURE_HEADER: signed})

    return send


def stored(database, body):
    with database.connection() as connection:
        return gateway_events.read(connection, "test", orjson.loads(body)["id"])


def jobs_of(database, body):
    with database.connection() as connection:
        return connection.execute(
            "SELECT count(*) AS jobs FROM jobs WHERE kind = 'gateway.event' AND arguments ->> 'event_id' = %s",
            (orjson.loads(body)["id"],),
        ).fetchone()["jobs"]


def test_event_is_stored_as_it_was_sent_with_a_job(send, database, event):
    answer = send(event)

    assert (answer.status_code, answer.json()) == (200, {"received": True})
    assert (stored(database, event).payload, stored(database, event).state) == (event.decode(), "received")
    assert jobs_of(database, event) == 1


def test_event_that_is_sent_again_is_accepted_and_stored_once(send, database, event):
    assert [send(event).status_code for _ in range(3)] == [200, 200, 200]

    assert jobs_of(database, event) == 1


@pytest.mark.parametrize("age", [301, 86_400, -330])
def test_old_signature_is_rejected(send, database, event, age):
    assert_error(send(event, at=int(time.time()) - age), 400, code="invalid_signature")
    assert stored(database, event) is None


@pytest.mark.parametrize(
    "signature",
    ["", "t=1", "v1=00", "t=x,v1=00", "t=1,t=2,v1=00", f"t=NOW,v1={'0' * 64}", b"t=\xb2,v1=0", "=,=,="],
)
def test_forged_signature_is_rejected(send, database, event, signature):
    if isinstance(signature, str):
        signature = signature.replace("NOW", str(int(time.time())))

    assert_error(send(event, signature=signature), 400, code="invalid_signature")
    assert stored(database, event) is None


def test_signature_of_another_body_is_rejected(send, simulator, database, event):
    other = event.replace(b"ch_none", b"ch_other")

    assert_error(send(event, signature=signatures.sign(other, simulator._secret)), 400, code="invalid_signature")


def test_large_body_is_rejected_before_it_is_verified(send):
    assert_error(send(b" " * (600 * 1024)), 413)


@pytest.mark.parametrize("gateway", ["stripe", "manual", "paypal"])
def test_gateway_that_is_not_configured_does_not_exist(send, event, gateway):
    assert_error(send(event, path=f"/webhooks/{gateway}"), 404, code="not_found")

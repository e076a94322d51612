"""Admins create, change, test, disable, enable and delete the webhook endpoints of their account."""

from dataclasses import replace

import pytest

from models.accounts.audit import RequestOrigin
from models.delivery import deliveries, endpoints, events
from models.delivery.endpoints import MAX_ENDPOINTS
from models.platform.database import fetch_all
from models.platform.errors import Conflict, InvalidRequest, LimitExceeded, NotFound, Released
from models.platform.ids import new_id
from pipelines.delivery import webhook_delivery, webhook_endpoints, webhook_replay
from pipelines.delivery.webhook_endpoints import EndpointValues
from tests.pipelines.delivery.conftest import status

ORIGIN = RequestOrigin()


@pytest.fixture
def stranger(webhooks):
    return replace(webhooks.caller, account_id=new_id("acct"))


def test_a_repeated_creation_returns_the_same_endpoint_and_secret(webhooks, receiver):
    values, endpoint_id = EndpointValues(url=receiver.url, event_types=["*"]), new_id("we")
    first, second = [
        webhook_endpoints.create(
            webhooks.database, webhooks.settings, webhooks.caller, values, endpoint_id, ORIGIN
        )
        for _ in range(2)
    ]  # fmt: skip
    assert first == second


@pytest.mark.parametrize(
    "url", ["ftp://example.com/", "file:///etc/passwd", "http://user:pw@example.com/", "http://denied.example/", "x"]
)
def test_a_url_that_gets_no_request_is_refused(webhooks, url):
    settings = webhooks.settings.model_copy(update={"egress_allow": ("*",), "egress_deny": ("denied.example",)})
    with pytest.raises(InvalidRequest) as caught:
        webhook_endpoints.create(
            webhooks.database, settings, webhooks.caller, EndpointValues(url=url), new_id("we"), ORIGIN
        )
    assert caught.value.param == "url"


def test_an_account_has_a_bounded_number_of_endpoints(webhooks, receiver):
    for _ in range(MAX_ENDPOINTS):
        endpoint = webhooks.add(receiver.url)
    with pytest.raises(LimitExceeded, match="Delete one"):
        webhooks.add(receiver.url)
    webhook_endpoints.delete(webhooks.database, webhooks.caller, endpoint.id, ORIGIN)
    webhooks.add(receiver.url)


def test_a_change_keeps_what_it_does_not_name(webhooks, receiver):
    endpoint = webhooks.add(receiver.url, "batch.*", name="a", description="b", metadata={"c": "d"})
    values = EndpointValues(event_types=["*"], metadata={})
    changed = webhook_endpoints.change(
        webhooks.database, webhooks.settings, webhooks.caller, endpoint.id, values, ORIGIN
    )
    assert changed == replace(endpoint, event_types=["*"], metadata={}, updated_at=changed.updated_at)
    assert changed.updated_at > endpoint.updated_at


def test_another_account_finds_nothing(webhooks, receiver, stranger):
    # Given an endpoint with a delivery, and the admin of another account
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    [delivery] = webhooks.deliveries(endpoint)
    database, settings = webhooks.database, webhooks.settings
    # When / Then each request finds nothing
    for request in (
        lambda: webhook_endpoints.change(database, settings, stranger, endpoint.id, EndpointValues(name="x"), ORIGIN),
        lambda: webhook_endpoints.delete(database, stranger, endpoint.id, ORIGIN),
        lambda: webhook_endpoints.rotate_secret(database, settings, stranger, endpoint.id, ORIGIN),
        lambda: webhook_endpoints.enable(database, stranger, endpoint.id, ORIGIN),
        lambda: webhook_endpoints.disable(database, stranger, endpoint.id, ORIGIN),
        lambda: webhook_endpoints.send_test(database, stranger, endpoint.id, "file.created", {}),
        lambda: webhook_endpoints.replay_one(database, stranger, delivery.id),
        lambda: webhook_endpoints.replay_since(database, stranger, endpoint.id, endpoint.created_at, new_id("job")),
    ):
        with pytest.raises(NotFound):
            request()
    assert webhooks.read(endpoint) == endpoint
    with database.connection() as connection:
        assert endpoints.page(connection, stranger.account_id) == []
        assert events.read(connection, delivery.event_id, stranger.account_id) is None


def test_changes_are_in_the_audit_log_without_secrets(webhooks, receiver):
    endpoint, secret = webhooks.create(f"{receiver.url}/?token=t0ken")
    webhook_endpoints.delete(webhooks.database, webhooks.caller, endpoint.id, ORIGIN)
    with webhooks.database.connection() as connection:
        rows = fetch_all(
            connection, "SELECT action, details FROM audit_events WHERE target = %s ORDER BY id", (endpoint.id,)
        )
    assert [row["action"] for row in rows] == ["webhook_endpoint.created", "webhook_endpoint.deleted"]
    assert "t0ken" not in str(rows)
    assert secret not in str(rows)


def test_a_sample_is_sent_once_and_listed_nowhere_else(webhooks, receive):
    # Given a disabled endpoint that refuses
    receiver = receive(status(500))
    endpoint = webhooks.add(receiver.url, "batch.*")
    webhook_endpoints.disable(webhooks.database, webhooks.caller, endpoint.id, ORIGIN)
    # When a test is asked for, also of a type that it does not ask for
    job_id = webhook_endpoints.send_test(
        webhooks.database, webhooks.caller, endpoint.id, "file.created", {"id": "file_sample"}
    )
    attempt = webhooks.begin(endpoint)
    assert attempt.job.id == job_id
    ending = webhooks.run(attempt)
    # Then the job says what it has answered, and the endpoint stays as it is
    assert ending.result["status_code"] == 500
    assert ending.result["sent"] is False
    assert len(receiver.requests) == 1
    assert webhooks.jobs(endpoint) == []
    assert (webhooks.read(endpoint).failing_since, webhooks.read(endpoint).disabled_reason) == (None, "requested")
    assert webhooks.deliveries(endpoint)[0].delivery_state == "failed"
    # And pollers do not see the sample
    with webhooks.database.connection() as connection:
        assert events.page(connection, webhooks.caller.account_id) == []


def test_what_was_held_is_delivered_when_the_endpoint_is_enabled_again(webhooks, receive, settle, monkeypatch):
    # Given more held deliveries than a page has, of a disabled endpoint
    monkeypatch.setattr(webhook_replay, "PAGE", 2)
    receiver = receive(status(410))
    endpoint = webhooks.add(receiver.url)
    for _ in range(5):
        webhooks.record()
    for _ in range(5):
        webhooks.step(endpoint)
    assert {delivery.delivery_state for delivery in webhooks.deliveries(endpoint)} == {"held"}
    receiver.answer, receiver.requests = status(200), []
    # When it is enabled, twice
    for _ in range(2):
        enabled = webhook_endpoints.enable(webhooks.database, webhooks.caller, endpoint.id, ORIGIN)
        assert enabled.enabled
    # Then one job continues the deliveries
    assert [job["kind"] for job in webhooks.jobs(endpoint)] == ["webhook.replay"]
    attempt = webhooks.begin(endpoint, "webhook.replay")
    ending = webhook_replay.run(attempt)
    settle(attempt, ending)
    assert ending.result == {"replayed": 5}
    for _ in range(5):
        webhooks.step(endpoint)
    assert {delivery.delivery_state for delivery in webhooks.deliveries(endpoint)} == {"delivered"}
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 5


def test_a_delivery_is_not_held_after_its_endpoint_was_enabled(webhooks, receiver, monkeypatch):
    # Given a job that has read that its endpoint is disabled
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    webhook_endpoints.disable(webhooks.database, webhooks.caller, endpoint.id, ORIGIN)
    attempt = webhooks.begin(endpoint)
    hold = deliveries.hold

    def enable_before(connection, fence):
        webhook_endpoints.enable(webhooks.database, webhooks.caller, endpoint.id, ORIGIN)
        return hold(connection, fence)

    monkeypatch.setattr(deliveries, "hold", enable_before)
    # When the endpoint is enabled before the delivery is held
    with pytest.raises(Released):
        webhooks.run(attempt)
    # Then the delivery is still pending, and the next attempt sends it
    assert webhooks.deliveries(endpoint)[0].delivery_state == "pending"
    webhooks.step(endpoint)
    assert webhooks.deliveries(endpoint)[0].delivery_state == "delivered"


def test_a_held_delivery_is_continued_although_its_first_job_did_not_end(webhooks, receiver, settle):
    # Given a worker that dies after it has held a delivery, and before it ends the job
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    webhook_endpoints.disable(webhooks.database, webhooks.caller, endpoint.id, ORIGIN)
    webhook_delivery.run(webhooks.sender, webhooks.begin(endpoint))
    assert webhooks.deliveries(endpoint)[0].delivery_state == "held"
    # When the endpoint is enabled, and both jobs run
    webhook_endpoints.enable(webhooks.database, webhooks.caller, endpoint.id, ORIGIN)
    settle(attempt := webhooks.begin(endpoint, "webhook.replay"), webhook_replay.run(attempt))
    results = [webhooks.step(endpoint).result["sent"] for _ in range(2)]
    # Then the event is sent once
    assert sorted(results) == [False, True]
    assert len(receiver.requests) == 1


def test_a_disabled_endpoint_replays_nothing(webhooks, receiver):
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    [delivery] = webhooks.deliveries(endpoint)
    webhook_endpoints.disable(webhooks.database, webhooks.caller, endpoint.id, ORIGIN)
    with pytest.raises(Conflict, match="Enable it first"):
        webhook_endpoints.replay_one(webhooks.database, webhooks.caller, delivery.id)
    with pytest.raises(Conflict, match="Enable it first"):
        webhook_endpoints.replay_since(
            webhooks.database, webhooks.caller, endpoint.id, endpoint.created_at, new_id("job")
        )

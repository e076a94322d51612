"""Events are delivered again: one, or all since a time, in bounded pages."""

from dataclasses import replace
from datetime import timedelta

import pytest

from models.accounts.audit import RequestOrigin
from models.platform.errors import Conflict, Released
from models.platform.ids import new_id
from pipelines.delivery import webhook_endpoints, webhook_replay
from pipelines.delivery.webhook_endpoints import EndpointValues
from tests.pipelines.delivery.conftest import status


@pytest.fixture
def delivered(webhooks, receiver):
    """An endpoint to which five events were delivered, and its receiver forgot them."""
    endpoint = webhooks.add(receiver.url, "file.*")
    for _ in range(5):
        webhooks.record()
    for _ in range(5):
        webhooks.step(endpoint)
    receiver.requests.clear()
    return endpoint


def replay_all(webhooks, endpoint, settle, **options):
    """Replay all events since the creation of the endpoint, and return their number and that of attempts."""
    since = endpoint.created_at - timedelta(seconds=1)
    webhook_endpoints.replay_since(webhooks.database, webhooks.caller, endpoint.id, since, new_id("job"), **options)
    attempt = webhooks.begin(endpoint, webhook_replay.KIND)
    ending = webhook_replay.run(attempt)
    settle(attempt, ending)
    return ending.result["replayed"]


def test_one_delivery_is_sent_again(webhooks, receiver, delivered):
    # Given a delivery
    [first, *others] = webhooks.deliveries(delivered)
    # When it is replayed
    replayed = webhook_endpoints.replay_one(webhooks.database, webhooks.caller, first.id)
    assert (replayed.delivery_state, replayed.tries, replayed.id) == ("pending", 0, first.id)
    # Then its event is sent again, with the same id, and its attempts are kept
    webhooks.step(delivered)
    assert [headers["webhook-id"] for headers, _ in receiver.requests] == [first.event_id]
    [again, *rest] = webhooks.deliveries(delivered)
    assert (again.delivery_state, len(again.attempts)) == ("delivered", 2)
    assert rest == others


def test_a_pending_delivery_is_not_sent_twice(webhooks, receiver):
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    [delivery] = webhooks.deliveries(endpoint)
    replayed = webhook_endpoints.replay_one(webhooks.database, webhooks.caller, delivery.id)
    assert replayed == delivery
    assert len(webhooks.jobs(endpoint)) == 1


def test_a_pending_delivery_whose_job_was_deleted_is_sent(webhooks, receiver, database):
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    [delivery] = webhooks.deliveries(endpoint)
    with database.connection() as connection:
        connection.execute("DELETE FROM jobs WHERE id = %s", (delivery.delivery_job_id,))
    webhook_endpoints.replay_one(webhooks.database, webhooks.caller, delivery.id)
    webhooks.step(endpoint)
    assert webhooks.deliveries(endpoint)[0].delivery_state == "delivered"


def test_all_events_since_a_time_are_sent_again(webhooks, receiver, delivered, settle, monkeypatch):
    # Given five events that were delivered, and pages of two
    monkeypatch.setattr(webhook_replay, "PAGE", 2)
    # When all are replayed, twice
    assert replay_all(webhooks, delivered, settle) == 5
    assert replay_all(webhooks, delivered, settle) == 0  # they are pending
    # Then each is sent once more, without delaying first attempts
    assert {job["queue"] for job in webhooks.jobs(delivered)} == {"webhooks_batch"}
    for _ in range(5):
        webhooks.step(delivered)
    assert len(receiver.requests) == len({headers["webhook-id"] for headers, _ in receiver.requests}) == 5


def test_an_endpoint_gets_events_that_it_did_not_ask_for_at_their_time(webhooks, receiver, delivered, settle):
    # Given an endpoint that asked for something else
    other = webhooks.add(receiver.url, "nothing.here")
    assert replay_all(webhooks, other, settle) == 0
    # When it asks for all, and replays
    values = EndpointValues(event_types=["*"])
    webhook_endpoints.change(webhooks.database, webhooks.settings, webhooks.caller, other.id, values, RequestOrigin())
    # Then it gets what happened before
    assert replay_all(webhooks, other, settle) == 5


def test_events_before_the_time_are_not_sent(webhooks, delivered, settle):
    later = replace(delivered, created_at=delivered.created_at + timedelta(hours=1))
    assert replay_all(webhooks, later, settle) == 0


def test_only_what_was_not_delivered_can_be_asked_for(webhooks, receive, settle):
    receiver = receive(status(410))
    endpoint = webhooks.add(receiver.url)
    for _ in range(2):
        webhooks.record()
    receiver.answer = status(200)
    webhooks.step(endpoint)
    webhooks.step(endpoint)
    assert replay_all(webhooks, endpoint, settle, undelivered_only=True) == 0
    assert replay_all(webhooks, endpoint, settle) == 2


def test_a_page_is_not_sent_twice_if_the_worker_dies_before_it_stores_its_progress(
    webhooks, receiver, delivered, settle, monkeypatch
):
    # Given a replay whose worker dies between the page and the progress
    since = delivered.created_at - timedelta(seconds=1)
    monkeypatch.setattr(webhook_replay, "PAGE", 2)
    webhook_endpoints.replay_since(webhooks.database, webhooks.caller, delivered.id, since, new_id("job"))
    lost = webhooks.begin(delivered, webhook_replay.KIND)
    monkeypatch.setattr(type(lost), "report_progress", crash)
    with pytest.raises(KeyboardInterrupt):
        webhook_replay.run(lost)
    monkeypatch.undo()
    # When the next attempt begins again
    ending = webhook_replay.run(webhooks.begin(delivered, webhook_replay.KIND))
    # Then each event has one job
    assert ending.result == {"replayed": 3}
    jobs = [job for job in webhooks.jobs(delivered) if job["kind"] == "webhook.deliver"]
    assert len(jobs) == 5


def crash(*arguments, **options):
    raise KeyboardInterrupt


def test_a_second_replay_waits_for_the_first_one(webhooks, delivered):
    since = delivered.created_at
    job_id = new_id("job")
    for _ in range(2):  # a repeated request
        webhook_endpoints.replay_since(webhooks.database, webhooks.caller, delivered.id, since, job_id)
    with pytest.raises(Conflict, match=job_id):
        webhook_endpoints.replay_since(webhooks.database, webhooks.caller, delivered.id, since, new_id("job"))


def test_a_replay_waits_while_much_is_pending_and_continues_where_it_was(
    webhooks, receiver, delivered, settle, monkeypatch
):
    # Given a bound of three pending deliveries, and pages of two
    monkeypatch.setattr(webhook_replay, "PAGE", 2)
    monkeypatch.setattr(webhook_replay, "MAX_PENDING", 3)
    since = delivered.created_at - timedelta(seconds=1)
    webhook_endpoints.replay_since(webhooks.database, webhooks.caller, delivered.id, since, new_id("job"))
    # When the job runs, it stops at the bound
    attempt = webhooks.begin(delivered, webhook_replay.KIND)
    with pytest.raises(Released) as released:
        webhook_replay.run(attempt)
    assert released.value.delay > 0
    assert len(webhooks.deliveries(delivered, state="pending")) == 4
    # And when these are delivered, its next attempt continues
    for _ in range(4):
        webhooks.step(delivered)
    again = webhooks.begin(delivered, webhook_replay.KIND)
    ending = webhook_replay.run(again)
    assert ending.result == {"replayed": 5}
    assert len(webhooks.deliveries(delivered, state="pending")) == 1

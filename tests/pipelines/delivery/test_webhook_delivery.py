"""An event is sent to its endpoints, at least once, whatever they answer."""

import socket
import threading
import time
from datetime import UTC, datetime
from email.utils import format_datetime

import anyio
import httpx2
import openai
import orjson
import pytest

from models.delivery import deliveries, endpoints
from models.jobs.attempts import Ending
from models.platform.database import fetch_all
from models.platform.errors import Moved, PermanentFailure
from pipelines.agents import event_loop
from pipelines.agents.egress import parse_policy, policy_of
from pipelines.delivery import webhook_delivery
from pipelines.delivery.webhook_client import WebhookClient
from pipelines.delivery.webhook_delivery import WebhookSender
from tests.pipelines.delivery.conftest import status

CLIENT = openai.OpenAI(api_key="none")


def admins_informed(webhooks, endpoint):
    """Return how many e-mails about an endpoint are queued."""
    with webhooks.database.connection() as connection:
        rows = fetch_all(
            connection,
            "SELECT arguments FROM jobs WHERE kind = 'email.send' AND arguments ->> 'endpoint_id' = %s",
            (endpoint.id,),
        )
    return len(rows)


def test_an_event_is_sent_signed_and_its_answer_is_kept(webhooks, receive):
    # Given an endpoint, and an event that it asks for
    receiver = receive(status(200, b"thanks"))
    endpoint, secret = webhooks.create(f"{receiver.url}/hook?x=1", "response.*")
    webhooks.record("response.completed", id="resp_1")
    # When its job runs
    assert isinstance(webhooks.step(endpoint), Ending)
    # Then OpenAI's client accepts the body and the signature
    [(headers, body)] = receiver.requests
    event = CLIENT.webhooks.unwrap(body, headers, secret=secret)
    assert (event.type, event.data.id, event.object) == ("response.completed", "resp_1", "event")
    assert headers["content-type"] == "application/json"
    # And the delivery has the answer
    [delivery] = webhooks.deliveries(endpoint)
    assert (delivery.delivery_state, delivery.tries, delivery.next_attempt_at) == ("delivered", 1, None)
    [attempt] = delivery.attempts
    assert (attempt["status_code"], attempt["body"], attempt["error"]) == (200, "thanks", None)
    assert 0 <= attempt["seconds"] < 5
    assert delivery.event_id == event.id == headers["webhook-id"]
    assert webhooks.jobs(endpoint) == []


@pytest.mark.parametrize("code", [300, 302, 304, 400, 401, 404, 429, 500, 503])
def test_a_refused_event_is_tried_again_apart_from_first_attempts(webhooks, receive, code):
    # Given a receiver that refuses
    receiver = receive(status(code, Location="http://127.0.0.1:1/"))
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    # When the job runs
    assert isinstance(webhooks.step(endpoint), Moved)
    # Then it is tried again about five seconds later, by other threads, and the endpoint counts as failing
    [job] = webhooks.jobs(endpoint)
    assert (job["queue"], job["state"]) == ("webhooks_batch", "scheduled")
    assert 3 < job["delay"] < 6
    [delivery] = webhooks.deliveries(endpoint)
    assert (delivery.delivery_state, delivery.tries, delivery.attempts[0]["status_code"]) == ("pending", 1, code)
    assert abs((delivery.next_attempt_at - datetime.now(UTC)).total_seconds() - job["delay"]) < 1
    assert webhooks.read(endpoint).failing_since is not None
    assert len(receiver.requests) == 1
    # When the receiver recovers, the next attempt sends the same body, and the endpoint fails no more
    receiver.answer = status(200)
    webhooks.step(endpoint)
    first, second = receiver.requests
    assert first[1] == second[1]
    assert webhooks.deliveries(endpoint)[0].delivery_state == "delivered"
    assert webhooks.read(endpoint).failing_since is None


def test_retries_take_a_day_and_then_the_delivery_has_failed(webhooks, receive):
    # Given a receiver that never accepts
    endpoint = webhooks.add(receive(status(500)).url)
    webhooks.record()
    # When all attempts have failed
    total = 0.0
    for _ in range(9):
        moved = webhooks.step(endpoint)
        total += moved.delay
    assert isinstance(webhooks.step(endpoint), Ending)
    # Then they took a day, and the delivery has failed
    assert 86_400 * 0.85 <= total <= 86_400 * 1.15
    [delivery] = webhooks.deliveries(endpoint)
    assert (delivery.delivery_state, delivery.tries, len(delivery.attempts)) == ("failed", 10, 10)
    assert delivery.next_attempt_at is None
    assert webhooks.jobs(endpoint) == []


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [("120", 118, 121), ("999999", 21_000, 21_600), ("0", 3, 6), ("soon", 3, 6), ("-5", 3, 6), ("1e9", 3, 6),
     (lambda: format_datetime(datetime.fromtimestamp(time.time() + 300, UTC), usegmt=True), 290, 301)],
)  # fmt: skip
def test_retry_after_is_honoured_up_to_a_bound(webhooks, receive, header, least, most):
    # Given a receiver that wants to be left alone
    text = header() if callable(header) else header
    endpoint = webhooks.add(receive(status(429, Retry_After=text)).url)
    webhooks.record()
    # When it has refused an event
    webhooks.step(endpoint)
    # Then the next attempt is due when it says, but not after six hours
    assert least < webhooks.jobs(endpoint)[0]["delay"] <= most


def test_gone_disables_at_once_and_informs_the_admins(webhooks, receive, mailbox):
    # Given an endpoint with two events, whose receiver says that it is gone
    endpoint = webhooks.add(receive(status(410)).url)
    for _ in range(2):
        webhooks.record()
    # When the first one is sent
    webhooks.step(endpoint)
    # Then the endpoint is disabled, one e-mail is queued, and the second one is held without a request
    disabled = webhooks.read(endpoint)
    assert (disabled.endpoint_status, disabled.disabled_reason) == ("disabled", "gone")
    assert admins_informed(webhooks, endpoint) == 1
    webhooks.step(endpoint)
    assert [delivery.delivery_state for delivery in webhooks.deliveries(endpoint)] == ["held", "held"]
    assert [len(delivery.attempts) for delivery in webhooks.deliveries(endpoint)] == [1, 0]
    # And later events are not for it
    webhooks.record()
    assert len(webhooks.deliveries(endpoint)) == 2


def test_five_days_of_failures_disable_and_the_email_says_which_endpoint(webhooks, receive, database, mailbox):
    # Given an endpoint that fails for almost five days
    endpoint = webhooks.add(receive(status(500)).url + "/hook")
    for _ in range(2):
        webhooks.record()
    webhooks.step(endpoint)
    webhooks.age_failures(endpoint, 4.9)
    webhooks.step(endpoint)
    assert webhooks.read(endpoint).enabled
    # When it has failed for longer
    webhooks.age_failures(endpoint, 0.2)
    webhooks.step(endpoint)
    # Then it is disabled, and its admin gets an e-mail
    disabled = webhooks.read(endpoint)
    assert (disabled.endpoint_status, disabled.disabled_reason) == ("disabled", "failing")
    with database.connection() as connection:
        [user] = fetch_all(connection, "SELECT email FROM users WHERE id = %s", (webhooks.caller.user_id,))
    [message] = mailbox.deliver(user["email"])
    assert message["Subject"] == "A webhook endpoint was disabled"
    assert f"/v1/webhook_endpoints/{endpoint.id}/enable" in message.get_content()


def test_a_success_ends_the_days_of_failures(webhooks, receive):
    # Given an endpoint that has failed for six days, and recovers
    receiver = receive(status(500))
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    webhooks.step(endpoint)
    webhooks.age_failures(endpoint, 6)
    receiver.answer = status(200)
    webhooks.step(endpoint)
    # When it fails again
    receiver.answer = status(500)
    webhooks.record()
    webhooks.step(endpoint)
    # Then it stays enabled
    assert webhooks.read(endpoint).enabled


def test_first_attempts_to_a_failing_endpoint_move_without_a_request(webhooks, receive):
    # Given two events that were recorded before the first one failed
    receiver = receive(status(500))
    endpoint = webhooks.add(receiver.url)
    for _ in range(2):
        webhooks.record()
    webhooks.step(endpoint)
    # When the second one is claimed from the queue of first attempts
    moved = webhooks.step(endpoint)
    # Then it goes to the threads of failing endpoints at once
    assert (moved.queue, moved.delay, len(receiver.requests)) == ("webhooks_batch", 0, 1)


def test_an_endpoint_that_does_not_answer_fails_after_its_time(webhooks, receive):
    # Given a receiver that never answers, and a client that waits half a second instead of fifteen
    receiver = receive()
    receiver.answer = receiver.never
    webhooks.use(WebhookClient(policy_of(webhooks.settings), timeout=0.5))
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    # When the event is sent
    begun = time.monotonic()
    assert isinstance(webhooks.step(endpoint), Moved)
    # Then the attempt fails in time, and says why
    assert time.monotonic() - begun < 5
    [attempt] = webhooks.deliveries(endpoint)[0].attempts
    assert (attempt["status_code"], attempt["error"]) == (None, "There was no answer within 0.5 seconds.")


def test_a_status_counts_although_the_body_does_not_end(webhooks, receive):
    receiver = receive()
    receiver.answer = receiver.slowly
    webhooks.use(WebhookClient(policy_of(webhooks.settings), timeout=0.5))
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    webhooks.step(endpoint)
    [delivery] = webhooks.deliveries(endpoint)
    assert (delivery.delivery_state, delivery.attempts[0]["body"]) == ("delivered", "the beginning")


def test_only_the_first_kilobyte_of_an_answer_is_kept(webhooks, receive):
    endpoint = webhooks.add(receive(status(200, b"\0" + "é".encode() * 1_000_000)).url)
    webhooks.record()
    webhooks.step(endpoint)
    [delivery] = webhooks.deliveries(endpoint)
    kept = delivery.attempts[0]["body"]
    assert delivery.delivery_state == "delivered"
    assert len(kept.encode()) <= 1030
    assert kept.count("é") > 500
    assert "\0" not in kept


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/", "http://169.254.169.254/latest", "http://[::1]:9/", "http://localhost:9/"]
)
def test_internal_addresses_get_no_request(webhooks, database, url):
    # Given an endpoint with an internal address
    endpoint = webhooks.add("http://127.0.0.1:9/")
    with database.connection() as connection:
        endpoints.change(connection, endpoint.id, webhooks.caller.account_id, url=url)
    webhooks.use(WebhookClient(parse_policy(("*",), ())))
    webhooks.record()
    # When an event is sent
    webhooks.step(endpoint)
    # Then the attempt says that the address may not be called
    [attempt] = webhooks.deliveries(endpoint)[0].attempts
    assert "not reachable from here" in attempt["error"]


def test_tls_is_verified(webhooks, receive, trusted):
    # Given a receiver with a certificate that only one of two clients trusts
    receiver = receive(tls=trusted)
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    # When the client that does not trust it sends the event
    webhooks.step(endpoint)
    # Then nothing was sent
    [attempt] = webhooks.deliveries(endpoint)[0].attempts
    assert "certificate verify failed" in attempt["error"]
    assert receiver.requests == []
    # When the other one sends it, it is delivered
    webhooks.use(WebhookClient(policy_of(webhooks.settings), context=httpx2.create_ssl_context()))
    webhooks.step(endpoint)
    assert webhooks.deliveries(endpoint)[0].delivery_state == "delivered"


def test_look_ups_that_hang_do_not_delay_endpoints_that_answer(webhooks, receive, monkeypatch):
    # Given more look-ups of a failing endpoint's host than the event loop has threads for, all of which hang
    receiver = receive(status(500))
    endpoint = webhooks.add(receiver.url)
    hang, look_up = threading.Event(), socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: hang.wait(60) if host == "hangs.test" else look_up(host, *a, **k)
    )
    policy = parse_policy(("hangs.test", "127.0.0.1"), ())
    webhooks.sender = webhooks_sender = WebhookSender(
        webhooks.settings, WebhookClient(policy), WebhookClient(policy, timeout=0.2)
    )
    webhooks._clients += [webhooks_sender.client, webhooks_sender.batch_client]

    async def hang_all() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(webhooks_sender.batch_client.post, "http://hangs.test/", {}, b"")

    event_loop.run(hang_all, lambda: False)
    # When an event is sent to another endpoint
    begun = time.monotonic()
    webhooks.record()
    webhooks.step(endpoint)
    # Then it has its answer
    hang.set()
    assert time.monotonic() - begun < 5
    assert webhooks.deliveries(endpoint)[0].attempts[0]["status_code"] == 500


def test_connections_are_used_again(webhooks, receive):
    ports = []
    endpoint = webhooks.add(receive(lambda request: ports.append(request.client_address) or status(200)(request)).url)
    for _ in range(3):
        webhooks.record()
        webhooks.step(endpoint)
    assert len(ports) == 3
    assert len(set(ports)) == 1


def test_a_worker_that_dies_before_the_commit_sends_again_the_same_event(webhooks, receiver, settle):
    # Given an attempt that has sent its event, and whose worker died before it stored that
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    lost = webhooks.begin(endpoint)
    webhook_delivery.run(webhooks.sender, lost)
    # When another attempt runs
    webhooks.step(endpoint)
    # Then the receiver has the event twice, with one id
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
    assert len(receiver.requests) == 2
    [delivery] = webhooks.deliveries(endpoint)
    assert (delivery.delivery_state, len(delivery.attempts)) == ("delivered", 1)


def test_the_job_of_a_deleted_endpoint_sends_nothing(webhooks, receiver, database):
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    attempt = webhooks.begin(endpoint)
    with database.connection() as connection:
        endpoints.delete(connection, endpoint.id, webhooks.caller.account_id)
    assert webhooks.run(attempt).result == {"sent": False}
    assert receiver.requests == []


def test_an_older_job_does_not_change_a_delivery_that_was_replayed(webhooks, receiver, database):
    # Given a job that has sent its event when the delivery got another job
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    attempt = webhooks.begin(endpoint)
    outcome = webhook_delivery.run(webhooks.sender, attempt)
    with database.connection() as connection:
        connection.execute(
            "UPDATE webhook_deliveries SET delivery_job_id = 'job_2' WHERE endpoint_id = %s", (endpoint.id,)
        )
    # When it stores its outcome
    with database.transaction() as connection:
        outcome.record(connection)
    # Then the delivery is still pending
    assert webhooks.deliveries(endpoint)[0].delivery_state == "pending"
    # And a job whose delivery has another sends nothing
    assert webhooks.run(webhooks.begin(endpoint)).result == {"sent": False}


def test_a_dead_job_fails_its_delivery(webhooks, receiver, settle):
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    attempt = webhooks.begin(endpoint)
    settle(attempt, webhook_delivery.end(attempt, "dead", {"code": "server_error", "message": "x"}))
    [delivery] = webhooks.deliveries(endpoint)
    assert (delivery.delivery_state, delivery.attempts[0]["error"]) == ("failed", "x")
    # When an operator lets the job run again
    assert webhooks.run(webhooks.again(attempt)).result["sent"]
    # Then the event is delivered
    assert webhooks.deliveries(endpoint)[0].delivery_state == "delivered"


def test_another_key_of_the_installation_fails_the_delivery_and_says_so(webhooks, receiver):
    endpoint = webhooks.add(receiver.url)
    webhooks.record()
    webhooks.use(webhooks.sender.client, secret_key="another key of the tests")
    with pytest.raises(PermanentFailure, match="Rotate the secret"):
        webhooks.step(endpoint)


def test_attempts_beyond_the_last_ones_are_forgotten(webhooks, receive, database):
    # Given a delivery with as many attempts as are kept
    endpoint = webhooks.add(receive(status(500, b"new")).url)
    webhooks.record()
    old = orjson.dumps([{"body": str(number)} for number in range(deliveries.KEPT_ATTEMPTS)]).decode()
    with database.connection() as connection:
        connection.execute("UPDATE webhook_deliveries SET attempts = %s WHERE endpoint_id = %s", (old, endpoint.id))
    # When another one is stored
    webhooks.step(endpoint)
    # Then the oldest is dropped
    kept = [attempt["body"] for attempt in webhooks.deliveries(endpoint)[0].attempts]
    assert len(kept) == deliveries.KEPT_ATTEMPTS
    assert (kept[0], kept[-1]) == ("1", "new")

"""Chaos runs check that each event was accepted, and that each background response has one."""

import pytest
from psycopg.types.json import Jsonb

from bench.chaos import webhook_rules
from bench.harness.webhook_receiver import WebhookReceiver
from models.delivery import endpoints, events
from models.jobs.jobs import NewJob, enqueue
from models.platform.ids import new_id
from pipelines.delivery import webhook_secrets

RESPONSE = """
INSERT INTO responses (id, account_id, job_id, thread, request, input, created_at)
VALUES (%s, %s, %s, %s, %s, '[]', now() + interval '1 second')
"""


class Run:
    """An account with an endpoint, and the receiver of its events."""

    def __init__(self, database, account):
        self.database, self.account = database, account
        self.secret = webhook_secrets.new_secret()
        self.receiver = WebhookReceiver(secrets={account: self.secret})
        with database.transaction() as connection:
            endpoints.insert(
                connection, new_id("we"), account, url="https://example.com/", event_types=["*"], name="",
                description="", metadata={}, secret="sealed", secret_hint="", created_by=None,
            )  # fmt: skip

    def end_response(self, *types):
        """Insert a background response that was completed, and record events of it."""
        response_id, job = new_id("resp"), NewJob("turn.run", self.account)
        with self.database.transaction() as connection:
            enqueue(connection, job)
            connection.execute("UPDATE jobs SET state = 'completed', finished_at = now() WHERE id = %s", (job.id,))
            request = Jsonb({"background": True})
            connection.execute(RESPONSE, (response_id, self.account, job.id, response_id, request))
            for type in types:
                events.record(connection, self.account, type, {"id": response_id})
        return response_id

    def deliver(self, secret=None):
        """Send what was recorded."""
        with self.database.connection() as connection:
            recorded = events.page(connection, self.account, limit=100)
        for event in recorded:
            body = b'{"id": "%s", "type": "%s", "data": {"id": "%s"}}' % tuple(
                text.encode() for text in (event.id, event.event_type, event.data["id"])
            )
            headers = webhook_secrets.signature_headers(
                [secret or self.secret], event.id, int(event.created_at.timestamp()), body
            )
            self.receiver.receive(self.account, headers, body)

    def rules(self):
        """Return the rules that are violated."""
        return sorted({each.rule for each in webhook_rules.check(self.database, self.receiver)})


@pytest.fixture
def run(database, account, monkeypatch):
    monkeypatch.setattr(webhook_rules, "RETRY_SECONDS", 0.0)
    return Run(database, account)


def test_an_accepted_event_is_no_violation(run):
    run.end_response("response.completed")
    run.deliver()

    assert run.rules() == []


def test_an_event_without_a_delivery_is_a_violation(run):
    # Given an event that arrived, and whose delivery is not in the table
    run.end_response("response.completed")
    run.deliver()
    with run.database.connection() as connection:
        connection.execute("DELETE FROM webhook_deliveries WHERE account_id = %s", (run.account,))
        assert run.rules() == []
        # When its endpoint is older than any transaction
        connection.execute(
            "UPDATE webhook_endpoints SET created_at = now() - interval '1 minute' WHERE account_id = %s",
            (run.account,),
        )
    # Then that is a violation
    assert run.rules() == ["webhook event"]


def test_an_event_that_did_not_arrive_is_a_violation(run):
    run.end_response("response.completed")

    assert run.rules() == ["webhook lost"]


def test_an_event_that_was_refused_is_a_violation(run):
    run.receiver.answer = lambda path, number, event_id: 500
    run.end_response("response.completed")
    run.deliver()

    assert run.rules() == ["webhook lost"]


@pytest.mark.parametrize("types", [(), ("response.failed",)])
def test_a_response_without_its_event_is_a_violation(run, types):
    run.end_response(*types)
    run.deliver()

    assert run.rules() == ["webhook event"]


def test_a_response_with_two_events_is_a_violation(run):
    run.end_response("response.completed", "response.completed")
    run.deliver()

    assert run.rules() == ["webhook event", "webhook id"]


def test_a_wrong_signature_is_a_violation(run):
    run.end_response("response.completed")
    run.deliver(secret=webhook_secrets.new_secret())

    assert run.rules() == ["webhook signature"]

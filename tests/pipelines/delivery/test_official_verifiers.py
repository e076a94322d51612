"""Webhooks are accepted by the verifiers that receivers use: OpenAI's client, and the library of the specification."""

import openai
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from models.accounts.audit import RequestOrigin
from models.delivery.event_types import EVENT_TYPES
from pipelines.delivery import webhook_endpoints, webhook_secrets

OPENAI = openai.OpenAI(api_key="none")


def unwrap(secret, body, headers):
    """Return the event by OpenAI's client."""
    return OPENAI.webhooks.unwrap(body, headers, secret=secret).model_dump()


def verify(secret, body, headers):
    """Return the event by the library of Standard Webhooks."""
    return Webhook(secret).verify(body, headers)


VERIFIERS = pytest.mark.parametrize("read", [unwrap, verify])
REFUSALS = (openai.InvalidWebhookSignatureError, WebhookVerificationError)


@VERIFIERS
@pytest.mark.parametrize("type", EVENT_TYPES)
def test_each_type_of_event_is_accepted(webhooks, receiver, type, read):
    # Given an endpoint that has received an event of the type
    endpoint, secret = webhooks.create(receiver.url)
    webhooks.record(type, **EVENT_TYPES[type].sample)
    webhooks.step(endpoint)
    # When its receiver verifies it
    [(headers, body)] = receiver.requests
    event = read(secret, body, headers)
    # Then it has the event
    assert (event["type"], event["object"]) == (type, "event")
    assert {name: event["data"][name] for name in EVENT_TYPES[type].sample} == EVENT_TYPES[type].sample
    assert event["id"] == headers["webhook-id"]


@VERIFIERS
def test_both_secrets_are_accepted_after_a_rotation(webhooks, receiver, read):
    endpoint, old = webhooks.create(receiver.url)
    _, new = webhook_endpoints.rotate_secret(
        webhooks.database, webhooks.settings, webhooks.caller, endpoint.id, RequestOrigin()
    )
    webhooks.record("response.completed", id="resp_1")
    webhooks.step(endpoint)

    [(headers, body)] = receiver.requests
    assert read(old, body, headers) == read(new, body, headers)


@VERIFIERS
def test_a_changed_body_and_another_secret_are_refused(webhooks, receiver, read):
    endpoint, secret = webhooks.create(receiver.url)
    webhooks.record("response.completed", id="resp_1")
    webhooks.step(endpoint)

    [(headers, body)] = receiver.requests
    for key, changed in ((secret, body.replace(b"resp_1", b"resp_2")), (webhook_secrets.new_secret(), body)):
        with pytest.raises(REFUSALS):
            read(key, changed, headers)

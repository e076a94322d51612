"""Secrets are random and encrypted; after a rotation both sign for a day, and official verifiers accept either."""

import base64
import time

import openai
import pytest

from models.accounts.audit import RequestOrigin
from models.platform.errors import PermanentFailure
from pipelines.delivery import webhook_endpoints, webhook_secrets
from pipelines.delivery.webhook_secrets import signature_headers

CLIENT = openai.OpenAI(api_key="none")


def test_a_secret_is_random_and_as_long_as_the_specification_wants():
    secrets = {webhook_secrets.new_secret() for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        assert secret.startswith("whsec_")
        assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64


def test_the_signature_of_the_specification():
    # The example of the reference implementations.
    headers = signature_headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_another_body_id_or_secret_is_not_accepted():
    secret, other = webhook_secrets.new_secret(), webhook_secrets.new_secret()
    headers = signature_headers([secret], "evt_1", int(time.time()), b"{}")
    CLIENT.webhooks.verify_signature(b"{}", headers, secret=secret)
    for body, changed, key in (
        (b"[]", headers, secret), (b"{}", {**headers, "webhook-id": "evt_2"}, secret), (b"{}", headers, other),
        (b"{}", signature_headers([secret], "evt_1", int(time.time()) - 400, b"{}"), secret),
    ):  # fmt: skip
        with pytest.raises(openai.InvalidWebhookSignatureError):
            CLIENT.webhooks.verify_signature(body, changed, secret=key)


def test_the_stored_secret_is_encrypted_for_its_endpoint(webhooks, receiver):
    endpoint, secret = webhooks.create(receiver.url)
    assert secret not in endpoint.secret
    assert base64.b64decode(secret.removeprefix("whsec_")) not in base64.b64decode(endpoint.secret)
    assert webhook_secrets.unseal(webhooks.settings, endpoint.id, endpoint.secret) == secret
    assert endpoint.secret_hint == f"whsec_…{secret[-4:]}"
    assert secret not in repr(endpoint)
    assert endpoint.secret not in repr(endpoint)
    # Another endpoint's row with the same text does not get the secret.
    with pytest.raises(PermanentFailure):
        webhook_secrets.unseal(webhooks.settings, "we_other", endpoint.secret)


def rotate(webhooks, endpoint, **options):
    return webhook_endpoints.rotate_secret(
        webhooks.database, webhooks.settings, webhooks.caller, endpoint.id, RequestOrigin(), **options
    )[1]


def accepts(receiver, secret):
    headers, body = receiver.requests[-1]
    try:
        CLIENT.webhooks.verify_signature(body, headers, secret=secret)
    except openai.InvalidWebhookSignatureError:
        return False
    return True


def test_both_secrets_sign_for_a_day_after_a_rotation(webhooks, receiver, database):
    # Given an endpoint whose secret was rotated
    endpoint, old = webhooks.create(receiver.url)
    new = rotate(webhooks, endpoint)
    # When an event is sent
    webhooks.record()
    webhooks.step(endpoint)
    # Then a receiver with either secret accepts it
    assert old != new
    assert accepts(receiver, old)
    assert accepts(receiver, new)
    # When the day is over
    with database.connection() as connection:
        connection.execute(
            "UPDATE webhook_endpoints SET previous_secret_until = previous_secret_until - interval '24 hours'"
            " WHERE id = %s",
            (endpoint.id,),
        )
    webhooks.record()
    webhooks.step(endpoint)
    # Then only the new one signs
    assert not accepts(receiver, old)
    assert accepts(receiver, new)


def test_a_rotation_can_end_the_old_secret_at_once(webhooks, receiver):
    endpoint, old = webhooks.create(receiver.url)
    new = rotate(webhooks, endpoint, keep=False)
    webhooks.record()
    webhooks.step(endpoint)
    assert not accepts(receiver, old)
    assert accepts(receiver, new)
    assert webhooks.read(endpoint).previous_secret is None

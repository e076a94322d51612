"""The secrets of webhook endpoints, and signatures by them (Standard Webhooks, standardwebhooks.com)."""

import base64
import hmac
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from cryptography.exceptions import InvalidTag

from models.delivery.endpoints import Endpoint
from models.platform.errors import PermanentFailure
from models.platform.secrets import Cipher, load_secret_key
from models.platform.settings import Settings

#: What secrets begin with; the rest is Base64.
PREFIX = "whsec_"

#: Random bytes of a secret: the specification wants 24 to 64.
STRENGTH = 32


def new_secret() -> str:
    """Return a new secret: `whsec_` and STRENGTH random bytes in Base64."""
    return PREFIX + base64.b64encode(os.urandom(STRENGTH)).decode()


def hint_of(secret: str) -> str:
    """Return a secret without all but its last characters, by which its owner recognises it."""
    return f"{PREFIX}…{secret[-4:]}"


def seal(settings: Settings, endpoint_id: str, secret: str) -> str:
    """Encrypt the secret of an endpoint."""
    encrypted = _cipher(load_secret_key(settings)).encrypt(secret.encode(), endpoint_id.encode())
    return base64.b64encode(encrypted).decode()


def unseal(settings: Settings, endpoint_id: str, sealed: str) -> str:
    """Decrypt the secret of an endpoint. Raises PermanentFailure if the installation's secret key has changed."""
    cipher = _cipher(load_secret_key(settings))
    try:
        return cipher.decrypt(base64.b64decode(sealed), endpoint_id.encode()).decode()
    except (InvalidTag, ValueError):
        message = "The webhook endpoint's secret cannot be decrypted: SANGHA_SECRET_KEY has changed. Rotate the secret."
        raise PermanentFailure(message, code="secret_unreadable") from None


@lru_cache(maxsize=4)
def _cipher(secret: bytes) -> Cipher:
    return Cipher(secret, "webhook secrets")


def valid_secrets(settings: Settings, endpoint: Endpoint) -> list[str]:
    """Return the secrets that sign now: the newest, and the one before it for a day after a rotation.

    Raises PermanentFailure.
    """
    sealed = [endpoint.secret]
    until = endpoint.previous_secret_until
    if endpoint.previous_secret is not None and until is not None and until > datetime.now(UTC):
        sealed.append(endpoint.previous_secret)
    return [unseal(settings, endpoint.id, secret) for secret in sealed]


def signature_headers(secrets: Sequence[str], event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a signed webhook; a receiver accepts it if one of the signatures is right.

    timestamp  seconds since 1970 of this attempt; receivers refuse one that is five minutes off
    """
    signatures = " ".join(_sign(secret, event_id, timestamp, body) for secret in secrets)
    return {"webhook-id": event_id, "webhook-timestamp": str(timestamp), "webhook-signature": signatures}


def _sign(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    digest = hmac.digest(key, f"{event_id}.{timestamp}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"

"""Encrypt the headers and the authorization that a request or an account sends to an MCP server."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import orjson
from cryptography.exceptions import InvalidTag

from models.platform.errors import PermanentFailure
from models.platform.secrets import Cipher, load_secret_key
from models.platform.settings import Settings

#: Hexadecimal digits of the digest that a sealed text begins with.
DIGEST_LENGTH = 32


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What is sent to a server beside the messages: headers, and the value of `Authorization` after `Bearer`."""

    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: str | None = None


def seal(settings: Settings, headers: Mapping[str, str], authorization: str | None) -> str:
    """Encrypt credentials. The text begins with a keyed digest of them, so that equal ones can be recognised."""
    text = orjson.dumps({"headers": dict(headers), "authorization": authorization}, option=orjson.OPT_SORT_KEYS)
    secret = load_secret_key(settings)
    digest = hmac.new(secret, b"MCP credentials " + text, hashlib.sha256).hexdigest()[:DIGEST_LENGTH]
    return f"{digest}.{base64.urlsafe_b64encode(_cipher(secret).encrypt(text, digest.encode())).decode()}"


def unseal(settings: Settings, sealed: str | None) -> Credentials:
    """Decrypt credentials; None has none. Raises PermanentFailure if the installation's secret key has changed."""
    if sealed is None:
        return Credentials()
    digest, _, encrypted = sealed.partition(".")
    cipher = _cipher(load_secret_key(settings))
    try:
        stored = orjson.loads(cipher.decrypt(base64.urlsafe_b64decode(encrypted), digest.encode()))
    except (InvalidTag, ValueError):
        message = "The MCP server's credentials cannot be decrypted: SANGHA_SECRET_KEY has changed. Enter them again."
        raise PermanentFailure(message, code="credentials_unreadable") from None
    return Credentials(stored["headers"], stored["authorization"])


def digest_of(sealed: str | None) -> str:
    """Return the digest of sealed credentials: equal ones have the same, under the same secret key."""
    return (sealed or "").partition(".")[0]


@lru_cache(maxsize=4)
def _cipher(secret: bytes) -> Cipher:
    return Cipher(secret, "MCP credentials")

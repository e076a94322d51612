"""Signatures of webhooks in Stripe's scheme: `t=TIME,v1=HMAC` of `TIME.BODY`, in the header of a request."""

import hashlib
import hmac
import time

from models.platform.errors import InvalidRequest

#: Seconds that a signature is valid, against replayed requests.
TOLERANCE = 300


def sign(body: bytes, secret: str, at: int | None = None) -> str:
    """Return the value of the header for a body that is sent now, or at a Unix time."""
    sent_at = int(time.time()) if at is None else at
    return f"t={sent_at},v1={_digest(body, secret, sent_at)}"


def verify(body: bytes, header: str, secret: str) -> None:
    """Check a signature. Raises InvalidRequest for one that is missing, forged, too old or from the future."""
    parts = [part.partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    digests = [value for name, _, value in parts if name == "v1"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdigit() and len(times[0]) < 12):
        raise _invalid("it has no valid time")
    expected = _digest(body, secret, int(times[0]))
    if not any(hmac.compare_digest(expected.encode(), digest.encode("utf-8", "replace")) for digest in digests):
        raise _invalid("it does not match the body")
    if abs(time.time() - int(times[0])) > TOLERANCE:
        raise _invalid(f"it is more than {TOLERANCE} seconds old")


def _digest(body: bytes, secret: str, sent_at: int) -> str:
    return hmac.new(secret.encode(), f"{sent_at}.".encode() + body, hashlib.sha256).hexdigest()


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The signature of the webhook is not valid: {reason}.", code="invalid_signature")

"""Convert the errors of an endpoint: those that another attempt may mend, and those that it would not."""

from typing import Any

import orjson

from models.platform.errors import PermanentFailure, SanghaError
from pipelines.inference.engine import EngineError

#: Temporary error statuses below 500; all from 500 are temporary, too.
RETRYABLE_STATUSES = frozenset({408, 409, 425, 429})

#: Statuses that report a fault of the caller's request, not of our credentials or URL.
INVALID_REQUEST_STATUSES = frozenset({400, 413, 422})

#: The most characters of an endpoint's message that are passed on.
MAX_MESSAGE = 300


def error_for_status(status: int, message: str) -> SanghaError:
    """Convert an HTTP status and the endpoint's message.

    Faults of our API key or URL concern the operator: callers only get the status.
    """
    if status >= 500 or status in RETRYABLE_STATUSES:
        return EngineError(f"The endpoint responded with {status}: {message}")
    if status not in INVALID_REQUEST_STATUSES:
        return PermanentFailure(f"The model's endpoint rejects this installation's requests ({status})")
    if "context" in message and ("length" in message or "size" in message):
        return PermanentFailure(message, code="context_length_exceeded")
    return PermanentFailure(message or f"The endpoint responded with {status}", code="invalid_request")


def message_of(text: bytes) -> str:
    """Return the message of an error response, in the common formats; at most MAX_MESSAGE characters."""
    try:
        parsed = orjson.loads(text)
        return _message(parsed.get("error") or parsed.get("detail") or parsed.get("message") or parsed)
    except (orjson.JSONDecodeError, AttributeError):
        return text[:MAX_MESSAGE].decode(errors="replace")


def error_in_stream(error: Any) -> SanghaError:
    """Convert an error that an endpoint sent after it had begun an answer with status 200."""
    message = _message(error)
    status = error.get("code") if isinstance(error, dict) else None
    if isinstance(status, int) and 400 <= status < 500:
        return error_for_status(status, message)
    return EngineError(f"The endpoint failed during the answer: {message}")


def _message(error: Any) -> str:
    return str(error.get("message") or error if isinstance(error, dict) else error)[:MAX_MESSAGE]

"""Map failures of an endpoint to errors. Callers decide by the kind of an error what to do next.

EndpointError is raised where another attempt may succeed, EndpointRejection where none would. Faults of our API key,
budget or URL concern the operator: callers only get the status.
"""

import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import orjson

from models.platform.errors import PermanentFailure
from pipelines.inference.engine import EngineError

#: Why an endpoint did not answer:
#:   auth              it rejects the API key
#:   quota             the operator's budget there is used up
#:   rate_limited      it asks for fewer requests
#:   overloaded        it has no capacity, or fails
#:   timeout           no connection, or no first byte of an answer in time
#:   refused           no connection
#:   dropped           the connection broke, or the answer ended early
#:   invalid_response  what it sends is no answer of the API
#:   bad_request       it rejects the caller's request
#:   content_filter    it withholds an answer to the caller's request
#:   model_not_found   it lacks the model, or the URL is wrong
FailureKind = Literal[
    "auth", "quota", "rate_limited", "overloaded", "timeout", "refused", "dropped", "invalid_response",
    "bad_request", "content_filter", "model_not_found",
]  # fmt: skip

#: Kinds that the caller's request causes: any endpoint would reject it, and they say nothing about this one.
CALLER_KINDS: frozenset[FailureKind] = frozenset({"bad_request", "content_filter"})

#: Kinds that another attempt would meet, too.
PERMANENT_KINDS: frozenset[FailureKind] = CALLER_KINDS | {"auth", "quota", "model_not_found"}

#: Kinds by the codes and types of errors, which say more than the status.
KINDS_OF_CODES: Mapping[str, FailureKind] = {
    "insufficient_quota": "quota",
    "billing_hard_limit_reached": "quota",
    "billing_not_active": "quota",
    "invalid_api_key": "auth",
    "model_not_found": "model_not_found",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "rate_limit_exceeded": "rate_limited",
}

#: Kinds by status; those from 500 on are `overloaded`, all others `invalid_response`.
KINDS_OF_STATUSES: Mapping[int, FailureKind] = {
    400: "bad_request",
    401: "auth",
    402: "quota",
    403: "auth",
    404: "model_not_found",
    408: "timeout",
    409: "overloaded",
    413: "bad_request",
    422: "bad_request",
    425: "overloaded",
    429: "rate_limited",
}

#: Statuses with which an endpoint has not begun the work, so that nothing is billed. Below 500 those of all kinds but
#: these; of the others only these.
MAY_HAVE_WORKED, REFUSES_WORK = frozenset({408, 409}), frozenset({501, 503, 529})

#: The most characters of an endpoint's message that are passed on, and the most seconds of a `Retry-After`.
MAX_MESSAGE, MAX_RETRY_AFTER = 300, 86_400.0


class EndpointFailure:
    """What is known of a failure.

    kind         why the endpoint did not answer
    retry_after  seconds until it may be asked again, as it says; None: it does not say
    accepted     whether it may have accepted the request, and may bill it
    """

    kind: FailureKind
    retry_after: float | None
    accepted: bool


class EndpointError(EngineError, EndpointFailure):
    """An endpoint failed, and another attempt may succeed."""

    def __init__(
        self, message: str, kind: FailureKind, *, accepted: bool = True, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.accepted = accepted
        self.retry_after = retry_after


class EndpointRejection(PermanentFailure, EndpointFailure):
    """An endpoint rejects the request, and would reject it again."""

    def __init__(
        self, message: str, kind: FailureKind, *, code: str = "server_error", retry_after: float | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.kind = kind
        self.accepted = False
        self.retry_after = retry_after


def error_for_status(
    status: int, message: str, codes: Sequence[str] = (), retry_after: float | None = None
) -> EndpointError | EndpointRejection:
    """Convert an HTTP status, the endpoint's message, and the codes and types of its error."""
    kind = _kind(status, codes)
    if kind in PERMANENT_KINDS or (kind == "invalid_response" and status < 500):
        return _rejection(kind, status, message, codes, retry_after)
    accepted = status in MAY_HAVE_WORKED if status < 500 else status not in REFUSES_WORK
    text = f"The endpoint responded with {status}: {message}"
    return EndpointError(text, kind, accepted=accepted, retry_after=retry_after)


def error_in_stream(error: Any) -> EndpointError | EndpointRejection:
    """Convert an error that an endpoint sent after it had begun an answer with status 200."""
    message, codes = _message(error), _codes(error)
    status = error.get("code") if isinstance(error, dict) else None
    if isinstance(status, int) and 400 <= status < 500:
        return error_for_status(status, message, codes)
    kind = next((KINDS_OF_CODES[code] for code in codes if code in KINDS_OF_CODES), None)
    if kind in PERMANENT_KINDS:
        return _rejection(kind, 200, message, codes, None)
    return EndpointError(f"The endpoint failed during the answer: {message}", kind or "overloaded")


def parse_error(text: bytes) -> tuple[str, Sequence[str]]:
    """Return the message of an error response in the common formats, at most MAX_MESSAGE characters, and its codes."""
    try:
        parsed = orjson.loads(text)
        error = parsed.get("error") or parsed.get("detail") or parsed.get("message") or parsed
    except (orjson.JSONDecodeError, AttributeError):
        return text[:MAX_MESSAGE].decode(errors="replace"), ()
    return _message(error), _codes(error) or _codes(parsed)


def parse_retry_after(headers: Sequence[tuple[bytes, bytes]]) -> float | None:
    """Return the seconds of the headers `Retry-After`, a number or an HTTP date, or OpenAI's `retry-after-ms`."""
    values = {name.lower(): value.decode("latin-1").strip() for name, value in headers}
    try:
        if text := values.get(b"retry-after-ms"):
            seconds = float(text) / 1000
        elif text := values.get(b"retry-after"):
            seconds = _seconds(text)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER) if seconds == seconds else None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return parsedate_to_datetime(text).timestamp() - time.time()


def _kind(status: int, codes: Sequence[str]) -> FailureKind:
    of_codes = next((KINDS_OF_CODES[code] for code in codes if code in KINDS_OF_CODES), None)
    if of_codes is not None and 400 <= status < 500:
        return of_codes
    return KINDS_OF_STATUSES.get(status, "overloaded" if status >= 500 else "invalid_response")


def _rejection(
    kind: FailureKind, status: int, message: str, codes: Sequence[str], retry_after: float | None
) -> EndpointRejection:
    if kind not in CALLER_KINDS:
        text = f"The model's endpoint rejects this installation's requests ({status})"
        return EndpointRejection(text, kind, retry_after=retry_after)
    code = "content_filter" if kind == "content_filter" else "invalid_request"
    if "context_length_exceeded" in codes or ("context" in message and ("length" in message or "size" in message)):
        code = "context_length_exceeded"
    return EndpointRejection(message or f"The endpoint responded with {status}", kind, code=code)


def _message(error: Any) -> str:
    return str(error.get("message") or error if isinstance(error, dict) else error)[:MAX_MESSAGE]


def _codes(error: Any) -> Sequence[str]:
    """Return the texts of an error's code and type."""
    if not isinstance(error, dict):
        return ()
    return [value for field in ("code", "type") if isinstance(value := error.get(field), str)]

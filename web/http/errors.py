"""Map errors to responses: statuses, headers, and the envelope `{"error": {"message", "type", "param", "code"}}`.

The types are OpenAI's, so that its clients raise the exceptions that their users know.
"""

import http
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
import psycopg.errors
import redis
from starlette.exceptions import HTTPException
from starlette.responses import Response
from typing_extensions import TypedDict

from models.platform.errors import (
    Conflict,
    InsufficientQuota,
    InvalidRequest,
    JobFailed,
    LimitExceeded,
    MeditationEnding,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    RequestError,
    RequestInFlight,
    SpendingLimitReached,
    TooLarge,
    Unavailable,
    UnprocessableRequest,
    WaitTimedOut,
)
from models.platform.redis_client import is_outage

log = logging.getLogger(__name__)


class ErrorDetails(TypedDict):
    """What failed: `message` for people, `type` and `code` for programs, `param` names the field."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(TypedDict):
    """The body of every error response."""

    error: ErrorDetails


class RateLimited(LimitExceeded):
    """A rate limit was reached. `headers` report the levels of its buckets."""

    def __init__(self, message: str, *, retry_after: float, headers: Mapping[str, str]) -> None:
        super().__init__(message, retry_after=retry_after)
        self.headers = headers


class BearerChallenge(NotAuthenticated):
    """Credentials are missing or invalid; `headers` say where the authorization of the resource is described."""

    def __init__(self, error: NotAuthenticated, *, resource_metadata: str) -> None:
        super().__init__(error.message, param=error.param, code=error.code)
        self.headers = {"www-authenticate": f'Bearer resource_metadata="{resource_metadata}"'}


#: OpenAI's clients retry statuses 408 and 409 unless this header forbids it.
PERMANENT = {"x-should-retry": "false"}
RETRY = {"x-should-retry": "true"}


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """The status, OpenAI's type and the headers of a class of errors."""

    status: int
    type: str
    headers: dict[str, str] = field(default_factory=dict)


KINDS: dict[type[RequestError], ErrorKind] = {
    InvalidRequest: ErrorKind(400, "invalid_request_error"),
    NotAuthenticated: ErrorKind(401, "authentication_error", {"www-authenticate": "Bearer"}),
    SpendingLimitReached: ErrorKind(402, "insufficient_quota", PERMANENT),
    NotAllowed: ErrorKind(403, "permission_error"),
    NotFound: ErrorKind(404, "invalid_request_error"),
    RequestInFlight: ErrorKind(409, "invalid_request_error", {"retry-after": "1", **RETRY}),
    MeditationEnding: ErrorKind(409, "invalid_request_error", {"retry-after": "1", **RETRY}),
    Conflict: ErrorKind(409, "invalid_request_error", PERMANENT),
    TooLarge: ErrorKind(413, "invalid_request_error"),
    UnprocessableRequest: ErrorKind(422, "invalid_request_error"),
    InsufficientQuota: ErrorKind(429, "insufficient_quota"),
    LimitExceeded: ErrorKind(429, "rate_limit_error"),
}

OTHER = ErrorKind(400, "invalid_request_error")


def error_response(error: Exception, request_id: str) -> Response:
    """Return the response to an error. An unexpected error is logged with its traceback."""
    if isinstance(error, RequestError):
        return _request_error(error)
    if isinstance(error, psycopg.errors.ForeignKeyViolation) and _names_the_caller(error):
        return _request_error(NotAuthenticated("The account or the user of this token has been deleted."))
    if isinstance(error, JobFailed):
        status = 504 if isinstance(error, WaitTimedOut) else 500
        return envelope(status, error.message, "server_error", code=error.code, headers=PERMANENT)
    if isinstance(error, Unavailable):
        return _unavailable(error.message, error.retry_after)
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return _unavailable("What the request needs is locked by another operation. Retry it.", 1)
    if isinstance(error, redis.RedisError) and is_outage(error):
        return _unavailable("The event journal cannot be reached at the moment.", 1)
    if isinstance(error, HTTPException):
        return _http_exception(error)
    log.error("Request %s failed", request_id, exc_info=error)
    message = f"Internal error. Quote the request id {request_id} when you report it."
    return envelope(500, message, "server_error", code="server_error")


def envelope(
    status: int,
    message: str,
    error_type: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return an error response."""
    body: ErrorEnvelope = {"error": {"message": message, "type": error_type, "param": param, "code": code}}
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


def _names_the_caller(error: psycopg.errors.ForeignKeyViolation) -> bool:
    """Return whether the missing row is an account or a user, whose ids come from a token that outlives them."""
    return (error.diag.constraint_name or "").endswith(("account_id_fkey", "user_id_fkey"))


def _request_error(error: RequestError) -> Response:
    kind = next((KINDS[base] for base in type(error).__mro__ if base in KINDS), OTHER)
    headers = kind.headers | (_retry_headers(error.retry_after) if isinstance(error, LimitExceeded) else {})
    headers |= error.headers if isinstance(error, RateLimited | BearerChallenge) else {}
    return envelope(kind.status, error.message, kind.type, param=error.param, code=error.code, headers=headers)


def _retry_headers(seconds: float | None) -> dict[str, str]:
    """Return headers that say when to retry, in whole seconds (RFC 9110, 10.2.3) and milliseconds; None is never."""
    if seconds is None:
        return PERMANENT
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000)), **RETRY}


def _unavailable(message: str, retry_after: int) -> Response:
    headers = {"retry-after": str(retry_after), **RETRY}
    return envelope(503, message, "server_error", code="service_unavailable", headers=headers)


def _http_exception(error: HTTPException) -> Response:
    phrase = http.HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_")
    return envelope(
        error.status_code, f"{error.detail}.", "invalid_request_error", code=code, headers=dict(error.headers or {})
    )

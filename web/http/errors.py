"""Map errors to responses: the status and the envelope of `pipelines.requests.errors`, and headers."""

import http
import logging
import math
from collections.abc import Mapping

import orjson
import psycopg.errors
import redis
from starlette.exceptions import HTTPException
from starlette.responses import Response

from models.platform.errors import (
    Conflict,
    JobFailed,
    LimitExceeded,
    MeditationEnding,
    NotAuthenticated,
    RequestError,
    RequestInFlight,
    SpendingLimitReached,
    Unavailable,
)
from models.platform.redis_client import is_outage
from pipelines.requests.errors import ErrorAnswer, envelope, error_answer

log = logging.getLogger(__name__)


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

#: Headers of the responses to errors of these classes.
HEADERS: dict[type[RequestError], dict[str, str]] = {
    NotAuthenticated: {"www-authenticate": "Bearer"},
    SpendingLimitReached: PERMANENT,
    RequestInFlight: {"retry-after": "1", **RETRY},
    MeditationEnding: {"retry-after": "1", **RETRY},
    Conflict: PERMANENT,
}


def error_response(error: Exception, request_id: str) -> Response:
    """Return the response to an error. An unexpected error is logged with its traceback."""
    if isinstance(error, RequestError):
        return _request_error(error)
    if isinstance(error, psycopg.errors.ForeignKeyViolation) and _names_the_caller(error):
        return _request_error(NotAuthenticated("The account or the user of this token has been deleted."))
    if isinstance(error, JobFailed):
        return _response(error_answer(error), PERMANENT)
    if isinstance(error, Unavailable):
        return _unavailable(error)
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return _unavailable(Unavailable("What the request needs is locked by another operation. Retry it."))
    if isinstance(error, redis.RedisError) and is_outage(error):
        return _unavailable(Unavailable("The event journal cannot be reached at the moment."))
    if isinstance(error, HTTPException):
        return _http_exception(error)
    log.error("Request %s failed", request_id, exc_info=error)
    message = f"Internal error. Quote the request id {request_id} when you report it."
    return _response(ErrorAnswer(500, envelope(message, "server_error", code="server_error")), {})


def _response(answer: ErrorAnswer, headers: Mapping[str, str]) -> Response:
    return Response(orjson.dumps(answer.body), answer.status, headers, media_type="application/json")


def _names_the_caller(error: psycopg.errors.ForeignKeyViolation) -> bool:
    """Return whether the missing row is an account or a user, whose ids come from a token that outlives them."""
    return (error.diag.constraint_name or "").endswith(("account_id_fkey", "user_id_fkey"))


def _request_error(error: RequestError) -> Response:
    headers = next((HEADERS[base] for base in type(error).__mro__ if base in HEADERS), {})
    headers = headers | (_retry_headers(error.retry_after) if isinstance(error, LimitExceeded) else {})
    headers |= error.headers if isinstance(error, RateLimited | BearerChallenge) else {}
    return _response(error_answer(error), headers)


def _retry_headers(seconds: float | None) -> dict[str, str]:
    """Return headers that say when to retry, in whole seconds (RFC 9110, 10.2.3) and milliseconds; None is never."""
    if seconds is None:
        return PERMANENT
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000)), **RETRY}


def _unavailable(error: Unavailable) -> Response:
    return _response(error_answer(error), {"retry-after": str(error.retry_after), **RETRY})


def _http_exception(error: HTTPException) -> Response:
    phrase = http.HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_")
    body = envelope(f"{error.detail}.", "invalid_request_error", code=code)
    return _response(ErrorAnswer(error.status_code, body), error.headers or {})

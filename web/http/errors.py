"""The one mapping from errors to answers, and the one envelope: `{"error": {"message", "type", "param", "code"}}`.

The types are OpenAI's, so that its clients raise the exceptions that their users know.
"""

import http
import logging
import math
from dataclasses import dataclass, field

import orjson
import psycopg.errors
import redis
from starlette.exceptions import HTTPException
from starlette.responses import Response
from typing_extensions import TypedDict

from models.platform.errors import (
    Conflict,
    Failed,
    InFlight,
    InsufficientQuota,
    InvalidRequest,
    Mismatch,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    Overdue,
    RequestError,
    TooLarge,
    TooMany,
    Unavailable,
)
from web.entrance.limits import RateLimited

log = logging.getLogger(__name__)


class ErrorDetails(TypedDict):
    """What went wrong: `message` for people, `type` and `code` for programs, `param` names the field."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(TypedDict):
    """The one envelope of every refusal."""

    error: ErrorDetails


#: OpenAI's clients repeat a 409 and a 408; told this, they don't.
PERMANENT = {"x-should-retry": "false"}
RETRY = {"x-should-retry": "true"}


@dataclass(frozen=True, slots=True)
class Kind:
    """How one branch of the tree looks from outside."""

    status: int
    type: str
    headers: dict[str, str] = field(default_factory=dict)


KINDS: dict[type[RequestError], Kind] = {
    InvalidRequest: Kind(400, "invalid_request_error"),
    NotAuthenticated: Kind(401, "authentication_error", {"www-authenticate": "Bearer"}),
    NotAllowed: Kind(403, "permission_error"),
    NotFound: Kind(404, "invalid_request_error"),
    InFlight: Kind(409, "invalid_request_error", {"retry-after": "1", **RETRY}),
    Conflict: Kind(409, "invalid_request_error", PERMANENT),
    TooLarge: Kind(413, "invalid_request_error"),
    Mismatch: Kind(422, "invalid_request_error"),
    InsufficientQuota: Kind(429, "insufficient_quota"),
    TooMany: Kind(429, "rate_limit_error"),
}

UNKNOWN = Kind(400, "invalid_request_error")


def answer(error: Exception, request_id: str) -> Response:
    """The response to an error. What nobody foresaw is logged with its traceback, and the caller gets only the id."""
    if isinstance(error, RequestError):
        return _refusal(error)
    if isinstance(error, psycopg.errors.ForeignKeyViolation) and _names_the_caller(error):
        return _refusal(NotAuthenticated("The account or the user of this token is gone."))
    if isinstance(error, Failed):
        status = 504 if isinstance(error, Overdue) else 500
        return respond(status, error.message, "server_error", code=error.code, headers=PERMANENT)
    if isinstance(error, Unavailable):
        return _unavailable(error.message, error.retry_after)
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return _unavailable("The event journal does not answer.", 1)
    if isinstance(error, HTTPException):
        return _http(error)
    log.error("request %s failed", request_id, exc_info=error)
    message = f"Something went wrong on our side. Please quote the request id {request_id}."
    return respond(500, message, "server_error", code="server_error")


def respond(
    status: int,
    message: str,
    error_type: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The envelope."""
    body = {"error": {"message": message, "type": error_type, "param": param, "code": code}}
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


def _names_the_caller(error: psycopg.errors.ForeignKeyViolation) -> bool:
    """Whether what is missing is the row's account or user: these come from the token, which outlives them."""
    return (error.diag.constraint_name or "").endswith(("account_id_fkey", "user_id_fkey"))


def _refusal(error: RequestError) -> Response:
    kind = next((KINDS[branch] for branch in type(error).__mro__ if branch in KINDS), UNKNOWN)
    headers = kind.headers | (_waiting(error.retry_after) if isinstance(error, TooMany) else {})
    headers |= error.headers if isinstance(error, RateLimited) else {}
    return respond(kind.status, error.message, kind.type, param=error.param, code=error.code, headers=headers)


def _waiting(seconds: float | None) -> dict[str, str]:
    """When to come again, in whole seconds (RFC 9110, 10.2.3) and for OpenAI's clients more exactly; or never."""
    if seconds is None:
        return PERMANENT
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000)), **RETRY}


def _unavailable(message: str, retry_after: int) -> Response:
    headers = {"retry-after": str(retry_after), **RETRY}
    return respond(503, message, "server_error", code="service_unavailable", headers=headers)


def _http(error: HTTPException) -> Response:
    phrase = http.HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_")
    return respond(
        error.status_code, f"{error.detail}.", "invalid_request_error", code=code, headers=dict(error.headers or {})
    )

"""Map errors to statuses and to the envelope `{"error": {"message", "type", "param", "code"}}`.

The types are OpenAI's, so that its clients raise the exceptions that their users know.
"""

from dataclasses import dataclass

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


class ErrorDetails(TypedDict):
    """What failed: `message` for people, `type` and `code` for programs, `param` names the field."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(TypedDict):
    """The body of every error response."""

    error: ErrorDetails


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """The status and OpenAI's type of a class of errors."""

    status: int
    type: str


KINDS: dict[type[RequestError], ErrorKind] = {
    InvalidRequest: ErrorKind(400, "invalid_request_error"),
    NotAuthenticated: ErrorKind(401, "authentication_error"),
    SpendingLimitReached: ErrorKind(402, "insufficient_quota"),
    NotAllowed: ErrorKind(403, "permission_error"),
    NotFound: ErrorKind(404, "invalid_request_error"),
    RequestInFlight: ErrorKind(409, "invalid_request_error"),
    MeditationEnding: ErrorKind(409, "invalid_request_error"),
    Conflict: ErrorKind(409, "invalid_request_error"),
    TooLarge: ErrorKind(413, "invalid_request_error"),
    UnprocessableRequest: ErrorKind(422, "invalid_request_error"),
    InsufficientQuota: ErrorKind(429, "insufficient_quota"),
    LimitExceeded: ErrorKind(429, "rate_limit_error"),
}

OTHER = ErrorKind(400, "invalid_request_error")


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """The status and the body that answer a request that failed."""

    status: int
    body: ErrorEnvelope


def error_answer(error: RequestError | JobFailed | Unavailable) -> ErrorAnswer:
    """Return the answer to a request that failed with an error."""
    match error:
        case JobFailed():
            status = 504 if isinstance(error, WaitTimedOut) else 500
            return ErrorAnswer(status, envelope(error.message, "server_error", code=error.code))
        case Unavailable():
            return ErrorAnswer(503, envelope(error.message, "server_error", code="service_unavailable"))
    kind = next((KINDS[base] for base in type(error).__mro__ if base in KINDS), OTHER)
    return ErrorAnswer(kind.status, envelope(error.message, kind.type, param=error.param, code=error.code))


def envelope(message: str, error_type: str, *, param: str | None = None, code: str | None = None) -> ErrorEnvelope:
    """Return the envelope of an error."""
    return {"error": {"message": message, "type": error_type, "param": param, "code": code}}

"""The errors that Sangha raises.

    SanghaError
    ├── RequestError                 caused by the request; becomes an HTTP response
    │   ├── InvalidRequest           400
    │   ├── NotAuthenticated         401
    │   ├── SpendingLimitReached     402, a limit of the account's spending per month: retrying does not help
    │   ├── NotAllowed               403
    │   ├── NotFound                 404
    │   ├── Conflict                 409
    │   │   ├── RequestInFlight      the same request is in progress: retry
    │   │   └── MeditationEnding     the previous meditation is about to end: retry
    │   ├── TooLarge                 413
    │   ├── UnprocessableRequest     422
    │   └── LimitExceeded            429, a limit of the account, the API key or the client address
    │       └── InsufficientQuota    the monthly quota is used up: retrying does not help
    ├── JobFailed                    500, the job behind the request failed: retrying does not help
    │   └── WaitTimedOut             504, the job takes longer than a request may wait
    ├── Unavailable                  503, a server that the request needs is down: retry
    ├── ConfigurationError           a setting or file is wrong; ends the process with one line
    └── JobError                     raised inside a job
        ├── Fenced                   a newer attempt exists: stop and write nothing
        ├── Cancelled                the job was cancelled
        ├── Released                 the worker stops or yields: the job continues later
        │   └── Moved                the job continues in another queue
        ├── TimeLimitExceeded        the attempt exceeded its time limit
        └── PermanentFailure         another attempt would fail too: do not retry
            ├── BudgetExhausted      a limit of the job's tree would be exceeded
            └── EffectUnknown        a call may or may not have had its effect: an operator decides

`web/http/errors.py` maps them to statuses.
"""

from collections.abc import Callable, Mapping
from typing import Any


class SanghaError(Exception):
    """The base class of all errors below."""


class RequestError(SanghaError):
    """The base class of errors that a request causes. `param` names the field; `code` is for programs."""

    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code


class InvalidRequest(RequestError):
    """The request is malformed, or asks for something that is not possible."""


class NotAuthenticated(RequestError):
    """The credentials are missing or no longer valid."""

    code = "invalid_api_key"


class SpendingLimitReached(RequestError):
    """The request could cost more than a spending limit has left this month."""

    code = "spending_limit_reached"


class NotAllowed(RequestError):
    """The caller lacks the right for this request."""

    code = "forbidden"


class NotFound(RequestError):
    """The account has no such object."""

    code = "not_found"


class Conflict(RequestError):
    """The object exists already, or its state does not allow the request."""

    code = "conflict"


class RequestInFlight(Conflict):
    """A request with the same Idempotency-Key is in progress. Retry."""

    code = "idempotency_key_in_flight"


class MeditationEnding(Conflict):
    """The user's previous meditation is about to end. Retry."""

    code = "meditation_ending"


class TooLarge(RequestError):
    """The body or a field exceeds its size limit."""

    code = "request_too_large"


class UnprocessableRequest(RequestError):
    """The request contradicts an earlier one, such as another body under the same Idempotency-Key."""

    code = "unprocessable"


class LimitExceeded(RequestError):
    """A limit of the account, the API key or the client address is exceeded.

    `retry_after` is the seconds after which to retry; None if retrying does not help.
    """

    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.retry_after = retry_after


class InsufficientQuota(LimitExceeded):
    """The account's monthly tokens are used up."""

    code = "insufficient_quota"


class JobFailed(SanghaError):
    """The job behind the request failed through no fault of the caller, who sees `message`."""

    def __init__(self, message: str, *, code: str = "server_error") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class WaitTimedOut(JobFailed):
    """The job takes longer than a request may wait. It continues."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="timeout")


class Unavailable(SanghaError):
    """A server that the request needs is unavailable. Retry after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class ConfigurationError(SanghaError):
    """A setting, file or package of the installation is wrong. The message is one line that says what to do."""


class JobError(SanghaError):
    """The base class of errors raised inside a running job."""


class Fenced(JobError):
    """A newer attempt of the job exists. The attempt stops and writes nothing more."""


class Cancelled(JobError):
    """The job was cancelled."""


class Released(JobError):
    """The job returns to the queue without a failure, to continue after `delay` seconds: its worker stops or yields.

    advanced  the attempt has brought the job forward, so that earlier failures and crashes no longer count
    """

    def __init__(self, message: str, *, delay: float = 0, advanced: bool = False) -> None:
        super().__init__(message)
        self.delay = delay
        self.advanced = advanced


class Moved(Released):
    """The job goes to another queue without a failure: its worker lacks the model, or the endpoint fails.

    queue   the queue in which it continues
    route   replaces `arguments.route`; None keeps that
    record  writes what belongs to the move, on the connection of its transaction
    quiet   it is not logged: there are thousands of its kind
    """

    def __init__(
        self,
        message: str,
        *,
        queue: str,
        route: Mapping[str, Any] | None = None,
        delay: float = 0,
        record: Callable[[Any], object] | None = None,
        quiet: bool = False,
    ) -> None:
        super().__init__(message, delay=delay)
        self.queue = queue
        self.route = route
        self.record = record
        self.quiet = quiet


class TimeLimitExceeded(JobError):
    """The attempt exceeded the time limit of its kind."""


class PermanentFailure(JobError):
    """Another attempt would fail too. The caller sees `code` and the message."""

    def __init__(self, message: str, *, code: str = "server_error") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class BudgetExhausted(PermanentFailure):
    """A limit of the tree of jobs would be exceeded."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="budget_exhausted")


class EffectUnknown(PermanentFailure):
    """A call to another system may or may not have had its effect, and must not be repeated. An operator decides."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="effect_unknown")

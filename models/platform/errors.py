"""Every error that Sangha raises on purpose, as one tree.

    SanghaError
    ├── RequestError            the caller's fault or limit; becomes an HTTP answer
    │   ├── InvalidRequest      400
    │   ├── NotAuthenticated    401
    │   ├── NotAllowed          403
    │   ├── NotFound            404
    │   ├── Conflict            409
    │   │   └── InFlight            what forbids it is about to end: try again
    │   ├── TooLarge            413
    │   ├── Mismatch            422
    │   └── TooMany             429, a limit of the account's or the address's
    │       └── InsufficientQuota   what the account may have is spent: waiting does not help
    ├── Failed                  500, the work behind the request ended without an answer; trying again does not help
    │   └── Overdue             504, it goes on, but for longer than a request may wait
    ├── Unavailable             503, a part that the work needs is down; trying again helps
    ├── ConfigurationError      a setting or a file of the operator's is wrong; ends the process with one line
    └── JobError                raised inside a job
        ├── Fenced              a later attempt owns the job: stop at once and write nothing
        ├── Cancelled           the caller asked for the job to stop
        ├── Released            the worker is leaving: another one continues the job
        ├── TimeLimitExceeded   the attempt ran past its time limit
        └── PermanentFailure    another attempt would fail alike: fail now, do not retry

Statuses are mapped in one place, `web/http/errors.py`.
"""


class SanghaError(Exception):
    """The root of the tree."""


class RequestError(SanghaError):
    """An answer to the caller: `message` says what is wrong, `param` names the field, `code` is for machines."""

    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code


class InvalidRequest(RequestError):
    """The request is malformed or asks for what can't be done."""


class NotAuthenticated(RequestError):
    """No credentials, or none that hold."""

    code = "invalid_api_key"


class NotAllowed(RequestError):
    """Known, but without the right."""

    code = "forbidden"


class NotFound(RequestError):
    """No such thing in the caller's account."""

    code = "not_found"


class Conflict(RequestError):
    """The thing exists already, or its state forbids this now."""

    code = "conflict"


class RequestInFlight(Conflict):
    """The very same request is still at work; trying again helps."""

    code = "idempotency_key_in_flight"


class TooLarge(RequestError):
    """The body or a field is larger than its bound."""

    code = "request_too_large"


class UnprocessableRequest(RequestError):
    """Well-formed, but it contradicts what was said before, such as another body under the same Idempotency-Key."""

    code = "unprocessable"


class LimitExceeded(RequestError):
    """More than the account, the key or the address may have.

    `retry_after` seconds is when it may be tried again; None when waiting does not help (a spent quota).
    """

    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.retry_after = retry_after


class InsufficientQuota(LimitExceeded):
    """The tokens of the account's month do not suffice."""

    code = "insufficient_quota"


class JobFailed(SanghaError):
    """The work behind a request ended without an answer, through no fault of the caller's, whom `message` may tell."""

    def __init__(self, message: str, *, code: str = "server_error") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class WaitTimedOut(JobFailed):
    """The work goes on, but for longer than a request may wait."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="timeout")


class Unavailable(SanghaError):
    """A part that the work needs does not answer; `retry_after` seconds is a fair time to wait."""

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class ConfigurationError(SanghaError):
    """A setting, file or package of the operator's is wrong. Its text is one line that says what to do."""


class JobError(SanghaError):
    """The root of what is raised inside a running job."""


class Fenced(JobError):
    """A later attempt owns the job. This one stops at once and writes nothing more."""


class Cancelled(JobError):
    """Somebody asked for the job to stop."""


class Released(JobError):
    """The worker is leaving. The job goes back to the queue, and another worker continues it."""


class TimeLimitExceeded(JobError):
    """The attempt ran past the time limit of its kind."""


class PermanentFailure(JobError):
    """Another attempt would fail alike. `code` and the text reach the caller."""

    def __init__(self, message: str, *, code: str = "server_error") -> None:
        super().__init__(message)
        self.message = message
        self.code = code

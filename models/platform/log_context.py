"""What a thread or task works on: the job or the request that its log lines and error reports name."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogContext:
    """The ids of the present job or request, which are labels of log lines. Text from callers is not allowed."""

    job_id: str | None = None
    job_kind: str | None = None
    attempt: int | None = None
    request_id: str | None = None

    def labels(self) -> dict[str, str]:
        """Return the known ids by name; labels of ECS are strings."""
        values = {
            "job_id": self.job_id,
            "job_kind": self.job_kind,
            "attempt": self.attempt,
            "request_id": self.request_id,
        }
        return {name: str(value) for name, value in values.items() if value is not None}

    def subject(self) -> str | None:
        """Return the job or the request as people read it; None outside of both."""
        if self.job_id is not None:
            return f"job {self.job_id}"
        return f"request {self.request_id}" if self.request_id is not None else None


NOTHING = LogContext()

_context: ContextVar[LogContext] = ContextVar("log_context", default=NOTHING)


def current_context() -> LogContext:
    """Return the context of the present thread or task."""
    return _context.get()


def set_context(context: LogContext) -> None:
    """Set the context for the rest of the present task, such as the one that serves a request."""
    _context.set(context)


@contextmanager
def log_context(context: LogContext) -> Iterator[None]:
    """Set the context within a block. A thread that the block starts does not inherit it."""
    token = _context.set(context)
    try:
        yield
    finally:
        _context.reset(token)

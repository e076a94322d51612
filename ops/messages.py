"""Shorten errors and log lines for the terminal."""

from models.platform.errors import ConfigurationError
from models.platform.texts import truncate

#: Characters of a log line that are shown on the console.
MAX_LINE_WIDTH = 200


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where there is no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def describe_error(error: BaseException) -> str:
    """Return the type and the message of an error; of a ConfigurationError only the message."""
    return str(error) if isinstance(error, ConfigurationError) else f"{type(error).__name__} {error}".strip()


def shorten_log_line(line: str) -> str:
    """Reduce a log line (see `ops/logs.py`) to its message and, of a traceback, the exception at its end."""
    message, _, traceback = line.partition("\\nTraceback")
    exception = traceback.rstrip().removesuffix("\\n").rpartition("\\n")[2]
    return truncate(f"{truncate(message, MAX_LINE_WIDTH // 2)} ({exception})" if exception else message, MAX_LINE_WIDTH)

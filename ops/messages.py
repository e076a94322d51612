"""Shorten errors and log lines for the terminal."""

import re

import orjson

from models.platform.errors import ConfigurationError
from models.platform.redaction import one_line
from models.platform.texts import truncate

#: Characters of a log line that are shown on the console.
MAX_LINE_WIDTH = 200

#: The job or the request at the end of a message (`ops/log_formats.py`).
SUBJECT = re.compile(r" \[(?:job|request) [^\]]+\]$")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where there is no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def describe_error(error: BaseException) -> str:
    """Return the type and the message of an error; of a ConfigurationError only the message."""
    return str(error) if isinstance(error, ConfigurationError) else f"{type(error).__name__} {error}".strip()


def shorten_log_line(line: str) -> str:
    """Reduce a log line (see `ops/log_formats.py`) to its message and, of a traceback, the exception at its end."""
    if line.startswith("{"):
        return _shorten_fields(line)
    message, _, traceback = line.partition("\\nTraceback")
    message = SUBJECT.sub("", message)
    return _shortened(message, traceback.rstrip().removesuffix("\\n").rpartition("\\n")[2])


def _shorten_fields(line: str) -> str:
    """Reduce a line of JSON, as text lines are."""
    try:
        fields = orjson.loads(line)
        time = str(fields["@timestamp"]).replace("T", " ").removesuffix("Z")
        message = f"{time} {fields['log.level'].upper()} {fields['log.logger']}: {fields['message']}"
    except (orjson.JSONDecodeError, KeyError, TypeError):  # a line of a library
        return truncate(line, MAX_LINE_WIDTH)
    kind = fields.get("error.type", "").rpartition(".")[2]
    return _shortened(one_line(message), one_line(f"{kind}: {fields['error.message']}") if kind else "")


def _shortened(message: str, exception: str) -> str:
    """Return the message and the exception, at most MAX_LINE_WIDTH characters."""
    return truncate(f"{truncate(message, MAX_LINE_WIDTH // 2)} ({exception})" if exception else message, MAX_LINE_WIDTH)

"""Log formats: text for people, and JSON lines with the field names of the Elastic Common Schema (ECS) 8.11."""

import logging
import os
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType

import orjson

from models.platform.log_context import current_context
from models.platform.redaction import one_line, redact
from models.platform.tracing import current_span_id, current_trace_id

FORMAT = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"

ECS_VERSION = "8.11.0"

#: Characters of a message and of a traceback that are logged; of a traceback the last ones.
MAX_MESSAGE, MAX_TRACEBACK = 8_000, 16_000

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class TextFormatter(logging.Formatter):
    """Formats a record as one line for people; a traceback follows its message, with \\n for line breaks."""

    def __init__(self) -> None:
        super().__init__(FORMAT, datefmt=TIME_FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the record without its traceback. The job or the request is added where the message lacks it."""
        line, subject = super().formatMessage(record), current_context().subject()
        return line if subject is None or subject.rpartition(" ")[2] in line else f"{line} [{subject}]"

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        return one_line(redact(super().format(record)))


class EcsFormatter(logging.Formatter):
    """Formats a record as a JSON object in one line. `extra={"ecs": {…}}` of a record adds fields of ECS.

    Field names have dots, as ECS loggers write them. `@timestamp`, `log.level` and `message` come first.
    """

    def __init__(self, service: Mapping[str, str]) -> None:
        """Create the formatter; `service` has the fields that all records of this process have."""
        super().__init__()
        self._service = dict(service)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        fields: dict[str, object] = {
            "@timestamp": timestamp(record.created),
            "log.level": record.levelname.lower(),
            "message": redact(record.getMessage())[:MAX_MESSAGE],
            "ecs.version": ECS_VERSION,
            "log.logger": record.name,
            **self._service,
            "event.dataset": "sangha.log",
            "process.pid": os.getpid(),
            "process.thread.name": record.threadName,
        }
        fields |= trace_fields()
        fields |= {f"labels.{name}": value for name, value in current_context().labels().items()}
        fields |= getattr(record, "ecs", {})
        fields |= error_fields(record.exc_info) if record.exc_info and record.exc_info[0] else {}
        return dump(fields)


def timestamp(seconds: float) -> str:
    """Return a time as `2026-11-28T19:40:02.123Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def trace_fields() -> dict[str, str]:
    """Return the ids of the present trace and span; nothing where none is recorded."""
    ids = {"trace.id": current_trace_id(), "span.id": current_span_id()}
    return {name: value for name, value in ids.items() if value is not None}


def error_fields(info: ExceptionInfo) -> dict[str, str]:
    """Return the fields of an exception."""
    kind, error, trace = info
    return {
        "error.type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
        "error.message": redact(str(error))[:MAX_MESSAGE],
        "error.stack_trace": redact("".join(traceback.format_exception(kind, error, trace)))[-MAX_TRACEBACK:],
    }


def dump(fields: Mapping[str, object]) -> str:
    """Return the fields as JSON. Lone surrogates, as in the name of a file, are escaped."""
    try:
        return orjson.dumps(fields, default=str).decode()
    except TypeError:
        return orjson.dumps({name: _without_surrogates(value) for name, value in fields.items()}, default=str).decode()


def _without_surrogates(value: object) -> object:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value

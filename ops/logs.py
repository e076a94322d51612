"""Configure the log of a process: to standard error, one line per record, tracebacks included."""

import logging
import os
import re
import sys
import threading
from types import TracebackType
from typing import Literal

from models.platform.log_levels import LevelName, set_level
from ops.log_formats import EcsFormatter, TextFormatter

log = logging.getLogger(__name__)

#: Log lines that `sangha up` shows on its console, in both formats. Not warnings: while a server restarts, every
#: process that uses it warns. An e-mail that is written to a file is shown, because a user waits for its link.
CONSOLE_PATTERN = re.compile(
    r"^\S+ \S+ ((ERROR|CRITICAL) |INFO pipelines\.delivery\.mailers: e-mail)"
    r'|^\{"@timestamp":"[^"]*","log\.level":("(error|critical)"|"info","message":"e-mail written to )'
)


def configure_logging(
    *,
    log_format: Literal["text", "json"] = "text",
    level: LevelName = "INFO",
    process: str = "sangha",
    verbose: bool = False,
    quiet: bool = False,
) -> None:
    """Log to standard error, from a level on: with `verbose` everything, with `quiet` only errors.

    Quiet is for commands that print their own result. `process` is the name of the command.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EcsFormatter(service_fields(process)) if log_format == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], force=True)
    set_level("DEBUG" if verbose else "ERROR" if quiet else level)
    logging.captureWarnings(True)
    if not quiet:
        log_uncaught_exceptions()


def service_fields(process: str) -> dict[str, str]:
    """Return the fields that say which program and process has logged a line."""
    from ops.version import version

    name = os.environ.get("OTEL_SERVICE_NAME") or "sangha"
    return {"service.name": name, "service.version": version(), "process.name": process}


def log_uncaught_exceptions() -> None:
    """Log exceptions that end the process or a thread as one line, in place of Python's tracebacks."""

    def log_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            log.critical("The process ends with an unexpected error", exc_info=(kind, error, trace))

    def log_thread_exception(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None:
            information = (failed.exc_type, failed.exc_value, failed.exc_traceback)
            log.error("Thread %s ended with an unexpected error", failed.thread and failed.thread.name,
                      exc_info=information)  # fmt: skip

    sys.excepthook = log_exception
    threading.excepthook = log_thread_exception

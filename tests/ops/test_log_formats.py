"""Formats of log lines: text for people, and JSON with the names of the Elastic Common Schema."""

import io
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from models.platform.log_context import LogContext, log_context
from models.platform.log_levels import OWN_LOGGERS, SILENT_LIBRARIES, VERBOSE_LIBRARIES
from ops import log_formats
from ops.log_formats import MAX_TRACEBACK, EcsFormatter, TextFormatter
from ops.logs import CONSOLE_PATTERN, configure_logging
from ops.messages import shorten_log_line
from tests.ops.ecs_fields import check_line

SERVICE = {"service.name": "sangha", "service.version": "1.2.3", "process.name": "web"}


class Log:
    """A logger that writes to memory."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(formatter)
        self.logger = logging.Logger("web.part")
        self.logger.addHandler(handler)

    @property
    def line(self) -> str:
        """The only line."""
        text = self.stream.getvalue()
        assert text.count("\n") == 1, text
        return text

    @property
    def fields(self) -> dict[str, Any]:
        """The only line, as JSON."""
        fields: dict[str, Any] = json.loads(self.line)
        check_line(fields)
        return fields


@pytest.fixture
def text() -> Log:
    return Log(TextFormatter())


@pytest.fixture
def ecs() -> Log:
    return Log(EcsFormatter(SERVICE))


def fail(message: str = "it broke") -> None:
    raise ValueError(message)


def log_failure(log: Log, message: str = "it broke") -> None:
    try:
        fail(message)
    except ValueError:
        log.logger.exception("Cannot read %s", "a file")


def test_text_names_the_job_where_the_message_does_not(text: Log) -> None:
    with log_context(LogContext("job_1", "turn.run", 1)):
        text.logger.warning("Cannot reach the server")

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} WARNING web\.part: Cannot reach the server \[job job_1\]\n", text.line
    )


def test_text_does_not_repeat_the_job_of_the_message(text: Log) -> None:
    with log_context(LogContext("job_1", "turn.run", 1)):
        text.logger.warning("Releasing job job_1")

    assert text.line.endswith("Releasing job job_1\n")


def test_text_has_a_traceback_in_the_same_line(text: Log) -> None:
    with log_context(LogContext(request_id="req_1")):
        log_failure(text)

    assert r"Cannot read a file [request req_1]\nTraceback (most recent call last):\n" in text.line
    assert text.line.endswith("ValueError: it broke\n")


def test_value_of_a_caller_cannot_begin_a_line(text: Log) -> None:
    text.logger.warning("Unknown name %s", "x\n2026-01-01 00:00:00.000 CRITICAL ops: all is lost\x1b[2J")

    assert r"x\n2026" in text.line
    assert "\x1b" not in text.line


def test_json_has_the_fields_of_a_record_its_job_and_its_trace(ecs: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a traced attempt
    monkeypatch.setattr(log_formats, "current_trace_id", lambda: "0af7651916cd43dd8448eb211c80319c")
    monkeypatch.setattr(log_formats, "current_span_id", lambda: "b7ad6b7169203331")
    # When it logs
    with log_context(LogContext("job_1", "turn.run", 2)):
        ecs.logger.warning("Cannot reach %s", "the server")
    # Then the line names it
    fields = ecs.fields
    assert (fields["log.level"], fields["log.logger"]) == ("warning", "web.part")
    assert fields["message"] == "Cannot reach the server"
    assert fields.items() >= SERVICE.items()
    assert (fields["trace.id"], fields["span.id"]) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    labels = {name: value for name, value in fields.items() if name.startswith("labels.")}
    assert labels == {"labels.job_id": "job_1", "labels.job_kind": "turn.run", "labels.attempt": "2"}


def test_json_has_the_fields_of_an_exception(ecs: Log) -> None:
    log_failure(ecs)

    fields = ecs.fields
    assert (fields["error.type"], fields["error.message"]) == ("ValueError", "it broke")
    assert fields["error.stack_trace"].startswith("Traceback")
    assert "in fail" in fields["error.stack_trace"]
    assert fields["message"] == "Cannot read a file"


def test_json_keeps_the_end_of_a_long_traceback(ecs: Log) -> None:
    log_failure(ecs, "x" * 3 * MAX_TRACEBACK + "the end")

    assert len(ecs.fields["error.stack_trace"]) == MAX_TRACEBACK
    assert ecs.fields["error.stack_trace"].endswith("the end\n")


def test_json_accepts_every_character(ecs: Log) -> None:
    ecs.logger.info('%s "quoted"\n', b"caf\xe9 \0".decode("utf-8", "surrogateescape"))

    assert ecs.fields["message"] == 'caf\\udce9 \0 "quoted"\n'


@pytest.mark.parametrize("formatter", [TextFormatter(), EcsFormatter(SERVICE)])
def test_secrets_are_masked_in_messages_and_errors(formatter: logging.Formatter) -> None:
    log = Log(formatter)

    log_failure(log, "connect to amqp://guest:hush@mq and sk-0123456789abcdef")
    assert "hush" not in log.line
    assert "0123456789abcdef" not in log.line


@pytest.mark.parametrize("formatter", [TextFormatter(), EcsFormatter(SERVICE)])
@pytest.mark.parametrize(("level", "is_shown"), [(logging.WARNING, False), (logging.ERROR, True)])
def test_console_shows_errors_in_both_formats(formatter: logging.Formatter, level: int, is_shown: bool) -> None:
    log = Log(formatter)

    with log_context(LogContext("job_1")):
        try:
            fail("why")
        except ValueError as error:
            log.logger.log(level, "It broke", exc_info=error)

    assert bool(CONSOLE_PATTERN.search(log.line)) == is_shown
    assert re.fullmatch(r"\S+ \S+ \w+ web\.part: It broke \(ValueError: why\)", shorten_log_line(log.line.rstrip("\n")))


def test_uncaught_exception_of_a_thread_is_one_line(logging_restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(log_format="json", process="worker")

    thread = threading.Thread(target=fail, name="relay")
    thread.start()
    thread.join()

    fields = json.loads(capsys.readouterr().err)
    check_line(fields)
    assert fields["message"] == "Thread relay ended with an unexpected error"
    assert fields["process.thread.name"] == "relay"


@pytest.fixture
def logging_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the configuration of logging."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    yield
    root.handlers[:], root.level = handlers, level
    for name in (*OWN_LOGGERS, *VERBOSE_LIBRARIES, *SILENT_LIBRARIES):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(False)


def test_uncaught_exception_is_one_line(logging_restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    # Given a process that logs JSON
    configure_logging(log_format="json", process="worker")
    # When an exception ends it
    try:
        fail()
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    # Then it is logged like every other error
    (line,) = capsys.readouterr().err.splitlines()
    fields = json.loads(line)
    check_line(fields)
    assert (fields["log.level"], fields["error.message"], fields["process.name"]) == ("critical", "it broke", "worker")

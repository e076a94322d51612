"""Errors are reported to Sentry where its address is set, without secrets and content."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from bench.harness.waiting import wait_until
from models.platform.errors import ConfigurationError
from models.platform.log_context import LogContext, log_context
from models.platform.settings import Settings
from ops import error_reports
from ops.error_reports import scrub, start_error_reports
from tests.ops.installation import Up
from tests.ops.sentry_server import SentryServer, sentry_server

MARK = "hush4711"

#: A web process that fails at a request; its local variables, headers and message have the mark.
FAILING_WEB = """
import asyncio, os, sys
import click
from ops.command_line import prepare

@click.command()
def web():
    prepare()
    from web.http.middleware import RequestMiddleware

    async def fail(scope, receive, send):
        local = os.environ["MARK"]
        raise ValueError(f"connect to redis://user:{local}@host failed for {local}@example.com")

    async def send(message):
        pass

    headers = [(b"host", b"sangha"), (b"x-request-id", b"my-request"), (b"authorization", os.environ["MARK"].encode())]
    scope = {"type": "http", "method": "POST", "http_version": "1.1", "path": "/", "headers": headers}
    asyncio.run(RequestMiddleware(fail)(scope, None, send))
    print("sentry_sdk" in sys.modules)

web.main([], prog_name="web", standalone_mode=False)
"""


@pytest.fixture
def sentry() -> Iterator[SentryServer]:
    with sentry_server() as server:
        yield server


def run_failing_web(**settings: str) -> str:
    """Run the process to its end and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SANGHA_", "SENTRY_"))}
    environment |= {"MARK": MARK, "PYTHONPATH": os.getcwd()} | settings
    command = [sys.executable, "-c", FAILING_WEB]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


def test_error_of_a_request_is_reported_without_content(sentry: SentryServer) -> None:
    # Given a web process with an address of Sentry
    settings = {"SENTRY_DSN": sentry.dsn, "SENTRY_ENVIRONMENT": "staging", "SENTRY_RELEASE": "1.2.3+abc"}
    # When a request fails
    run_failing_web(**settings)
    # Then one event is reported, with the release, the environment and the request
    (event,) = sentry.events
    assert (event["environment"], event["release"], event["level"]) == ("staging", "1.2.3+abc", "error")
    assert event["tags"] == {"process": "web", "request_id": "my-request"}
    assert event["logentry"]["message"] == "Request %s failed"
    # And the exception with its traceback, without a local variable or the values in its message
    exception = event["exception"]["values"][0]
    assert exception["type"] == "ValueError"
    assert exception["value"] == "connect to redis://***@host failed for h***@example.com"
    assert exception["stacktrace"]["frames"][-1]["function"] == "fail"
    assert MARK not in sentry.raw
    assert sentry.other_items == []
    assert not event.keys() & {"request", "user", "extra", "breadcrumbs", "modules"}


def test_nothing_is_imported_or_sent_without_an_address(sentry: SentryServer) -> None:
    assert run_failing_web().strip() == "False"
    assert sentry.raw == ""


def test_default_release_is_the_version(sentry: SentryServer) -> None:
    run_failing_web(SENTRY_DSN=sentry.dsn)

    assert sentry.events[0]["release"].startswith("sangha@")
    assert sentry.events[0]["environment"] == "production"


def test_unreachable_sentry_stops_nothing() -> None:
    assert run_failing_web(SENTRY_DSN="http://a0b1c2@127.0.0.1:9/7").strip() == "True"


def test_malformed_address_ends_the_process_with_one_line() -> None:
    with pytest.raises(ConfigurationError, match="SENTRY_DSN should be"):
        start_error_reports(Settings(sentry_dsn="https://sentry.example.com/7"), "web")


def test_commands_that_print_their_errors_report_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)  # an import would raise

    start_error_reports(Settings(sentry_dsn="https://key@sentry.example.com/7"), "pools")


def test_event_has_only_known_fields_and_names_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an event with everything that an SDK might add
    frame = {"filename": "a.py", "function": "f", "lineno": 3, "vars": {"text": MARK}}
    exception = {"type": "KeyError", "value": f"?q={MARK}", "stacktrace": {"frames": [frame]}, "thread_id": 1}
    event: Any = {"level": "error", "request": {"data": MARK}, "user": {"email": MARK}, "extra": {"ecs": MARK}}
    event |= {"breadcrumbs": [MARK], "contexts": {"state": MARK}, "exception": {"values": [exception]}, "new": MARK}
    record = logging.LogRecord("tasks", logging.ERROR, "", 1, "Job %s is dead: Bearer %s", ("job_1", MARK * 2), None)
    monkeypatch.setattr(error_reports, "current_trace_id", lambda: "ab" * 16)
    # When it is scrubbed in an attempt
    with log_context(LogContext("job_1", "turn.run", 3)):
        scrubbed = cast(dict[str, Any], scrub(event, {"log_record": record}, "worker"))
    # Then nothing of it remains but what is known to be harmless
    assert MARK not in str(scrubbed)
    assert scrubbed["logentry"]["message"] == "Job %s is dead: Bearer %s"
    assert scrubbed["tags"]["job_kind"] == "turn.run"
    assert scrubbed["tags"]["trace_id"] == scrubbed["contexts"]["trace"]["trace_id"] == "ab" * 16
    assert scrubbed["exception"]["values"][0]["stacktrace"]["frames"] == [
        {"filename": "a.py", "function": "f", "lineno": 3}
    ]


@pytest.mark.timeout(180)
def test_dead_jobs_and_killed_processes_of_an_installation_are_reported(tmp_path: Path, sentry: SentryServer) -> None:
    # Given an installation whose engine fails at every attempt at some turns
    up = Up(tmp_path / "data", SENTRY_DSN=sentry.dsn, SANGHA_SCRIPT="fail_at=0,trigger=boom").wait_ready()
    try:
        # When such a turn is dead
        with httpx.Client(base_url=up.address, timeout=60) as client:
            signup = client.post("/signup", json={"email": "me@example.com", "password": "correct horse battery"})
            headers = {"authorization": f"Bearer {signup.json()['token']}"}
            turn = {"model": "default", "input": f"boom {MARK}"}
            assert client.post("/v1/responses", json=turn, headers=headers).json()["status"] == "failed"
        # Then its error is reported with the kind of the job
        wait_until(lambda: sentry.events, 20)
        dead = sentry.events[0]
        assert dead["logentry"]["message"] == "Job %s is dead after attempt %d"
        assert dead["tags"].items() >= {"process": "worker", "job_kind": "turn.run", "attempt": "5"}.items()
        assert dead["exception"]["values"][-1]["stacktrace"]["frames"]
        # When a process is killed
        os.kill(up.pids()["worker-light"], signal.SIGKILL)
        # Then the supervisor reports it
        wait_until(lambda: len(sentry.events) > 1, 20)
        assert sentry.events[1]["message"] == "worker-light exited: killed by SIGKILL"
        assert sentry.events[1]["tags"] == {"process": "up"}
    finally:
        up.stop()
    assert MARK not in sentry.raw

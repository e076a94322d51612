"""Without its variables nothing is traced; with them spans are exported, and a collector that is away costs nothing."""

import subprocess
import sys
import threading
import time

import pytest

from models.platform import tracing
from models.platform.tracing import SpanIdentity, is_configured
from tests.otlp_receiver import OtlpReceiver, otlp_receiver

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("environment", "configured"),
    [
        ({}, False),
        ({ENDPOINT: "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://collector:4318", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_an_endpoint_turns_traces_on(environment: dict[str, str], configured: bool):
    assert is_configured(environment) is configured


def test_without_an_endpoint_the_sdk_is_not_imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(ENDPOINT, raising=False)
    program = (
        "import sys; from models.platform import tracing; import models.jobs.attempt_spans; import tasks.job_runner\n"
        "tracing.start_tracing('web', '1')\n"
        "with tracing.span('a') as span: span.set('b', 1); assert tracing.current_traceparent() is None\n"
        "tracing.stop_tracing()\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk') and sys.modules[name]]"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert result.returncode == 0, result.stderr


#: Traces two spans, of which the outer one is below PARENT, and prints how long the stop of tracing takes.
PROGRAM = f"""
import logging, sys, time
from models.platform import tracing
from models.platform.tracing import SpanIdentity
logging.basicConfig(format="%(message)s")
tracing.start_tracing("test", "1")
try:
    with tracing.span("outer", "server", {{"a": 1}}, SpanIdentity({PARENT!r}, span_id=7, linked_id=6)):
        print(tracing.current_traceparent(), tracing.current_trace_id(), tracing.current_span_id())
        with tracing.span("inner"):
            raise ValueError("a secret")
except ValueError:
    pass
began = time.monotonic()
tracing.stop_tracing()
print(time.monotonic() - began)
with tracing.span("late"):
    pass
"""


def run_program(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> subprocess.CompletedProcess[str]:
    monkeypatch.setenv(ENDPOINT, endpoint)
    return subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)


def test_spans_are_exported_when_the_process_stops(monkeypatch: pytest.MonkeyPatch):
    with otlp_receiver() as receiver:
        printed = run_program(monkeypatch, receiver.endpoint).stdout.split()

    spans = {span.name: span for span in receiver.spans}
    assert spans.keys() == {"outer", "inner"}
    outer, inner = spans["outer"], spans["inner"]
    assert printed[1:3] == [outer.trace_id, outer.span_id] == [PARENT[3:35], f"{7:016x}"]
    assert (outer.parent_id, outer.links, outer.kind) == (PARENT[36:52], [f"{6:016x}"], "server")
    assert outer.attributes["a"] == 1
    assert (inner.parent_id, inner.trace_id, inner.failed) == (outer.span_id, outer.trace_id, True)
    assert inner.attributes == {"error.type": "ValueError"}  # without the message, which may quote content
    assert inner.resource["service.name"] == "sangha"


@pytest.fixture
def silent_collector():
    """A collector that accepts connections and never answers."""
    released = threading.Event()

    class Silent(OtlpReceiver):
        def finish_request(self, request: object, client_address: object) -> None:
            released.wait(30)

    with Silent() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.endpoint
        released.set()
        server.shutdown()


def test_a_collector_that_does_not_answer_delays_the_stop_by_two_seconds_at_most(
    monkeypatch: pytest.MonkeyPatch, silent_collector: str
):
    printed = run_program(monkeypatch, silent_collector)

    assert float(printed.stdout.split()[-1]) < 3


def test_a_collector_that_is_away_is_one_line_in_the_log(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")

    printed = run_program(monkeypatch, "http://127.0.0.1:9")

    assert printed.stderr.splitlines() == [
        "Traces are lost: OTEL_EXPORTER_OTLP_ENDPOINT does not take them. Jobs are not affected"
    ]


def test_a_malformed_context_of_a_caller_begins_a_new_trace(monkeypatch: pytest.MonkeyPatch):
    with otlp_receiver() as receiver:
        monkeypatch.setenv(ENDPOINT, receiver.endpoint)
        tracing.start_tracing("test", "1")
        try:
            with tracing.span("request", "server", None, SpanIdentity("00-not-a-context-01")):
                trace_id = tracing.current_trace_id()
        finally:
            began = time.monotonic()
            tracing.stop_tracing()

    assert time.monotonic() - began < 2
    assert [(span.trace_id, span.parent_id) for span in receiver.spans] == [(trace_id, "")]

"""A server that receives traces as collectors do: OTLP over HTTP, in protobuf."""

import gzip
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

#: The codes of kinds, as the protocol numbers them.
KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span. Ids are hexadecimal; `parent_id` is empty for the first one of a trace."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    failed: bool
    seconds: float
    attributes: dict[str, Any]
    events: list[str]
    links: list[str]
    resource: dict[str, Any]


class OtlpReceiver(http.server.ThreadingHTTPServer):
    """Keeps the spans that it receives.

    status  of its answers
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Exports)
        self.spans: list[ReceivedSpan] = []
        self.status = 200
        self.requests = 0

    @property
    def endpoint(self) -> str:
        """The value of OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_port}"

    def trace(self, trace_id: str) -> list[ReceivedSpan]:
        """Return the spans of a trace that have arrived."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def receive(self, body: bytes) -> None:
        """Keep the spans of a request."""
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _attributes(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                self.spans += [_span(span, resource) for span in of_scope.spans]


class Exports(http.server.BaseHTTPRequestHandler):
    """`POST /v1/traces`."""

    server: OtlpReceiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/v1/traces"
        self.server.requests += 1
        if self.server.status == 200:
            self.server.receive(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
        self.send_response(self.server.status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def _span(span: Any, resource: dict[str, Any]) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=KINDS[span.kind],
        failed=span.status.code == 2,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        attributes=_attributes(span.attributes),
        events=[event.name for event in span.events],
        links=[link.span_id.hex() for link in span.links],
        resource=resource,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    """Run a receiver."""
    with OtlpReceiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()

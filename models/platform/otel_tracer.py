"""Spans by OpenTelemetry's SDK, which reads all OTEL_* variables itself. Imported only where traces are exported."""

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from models.platform.errors import Cancelled, Fenced, Released
from models.platform.ids import new_id
from models.platform.span_names import ERROR_TYPE
from models.platform.tracing import Kind, SpanIdentity, Value

log = logging.getLogger(__name__)

#: Seconds for which the stop of a process waits for the export of its last spans.
CLOSE_TIMEOUT = 2.0

KINDS: Mapping[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}

#: Exceptions that stop an attempt which has not failed.
INTERRUPTIONS = (Cancelled, Fenced, Released)

PROPAGATOR = TraceContextTextMapPropagator()


class OtelTracer:
    """Makes spans, which a thread of the SDK exports from a bounded queue."""

    def __init__(self, process: str, version: str) -> None:
        attributes: dict[str, str | int] = {
            "service.version": version,
            "service.instance.id": new_id("process"),
            "process.pid": os.getpid(),
            "process.command": process,
        }
        if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        ):
            attributes["service.name"] = "sangha"
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it logs each export that fails
        self._ids = ChosenIds()
        self._provider = TracerProvider(
            resource=Resource.create(attributes), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(ExporterWithOneLine(OTLPSpanExporter())))
        trace.set_tracer_provider(self._provider)  # for the SDK of MCP, which makes spans of its requests
        self._tracer = self._provider.get_tracer("sangha", version)

    def close(self) -> None:
        """Export what is queued, for at most CLOSE_TIMEOUT seconds. The export goes on in a daemon thread."""
        closing = threading.Thread(target=self._provider.shutdown, name="close tracing", daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT)

    def span(
        self, name: str, kind: Kind, attributes: Mapping[str, Value] | None, identity: SpanIdentity | None
    ) -> "OtelSpan":
        """Begin a span."""
        return OtelSpan(self._begin(name, kind, attributes, identity))

    def record(
        self,
        name: str,
        kind: Kind,
        attributes: Mapping[str, Value],
        identity: SpanIdentity,
        seconds: tuple[float, float],
        error_type: str,
    ) -> None:
        """Export a failed span of the past."""
        began, ended = (int(second * 1e9) for second in seconds)
        span = self._begin(name, kind, attributes, identity, began)
        _fail(span, error_type)
        span.end(ended)

    def traceparent(self) -> str | None:
        """Return the present span as the value of the header."""
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def _begin(
        self,
        name: str,
        kind: Kind,
        attributes: Mapping[str, Value] | None,
        identity: SpanIdentity | None,
        began: int | None = None,
    ) -> trace.Span:
        context = None if identity is None else _parent(identity.traceparent)
        links = _links(identity, context) if identity and context is not None else []
        if identity is not None:
            self._ids.choose(identity)
        return self._tracer.start_span(name, context, KINDS[kind], dict(attributes or {}), links, began)


def _parent(traceparent: str | None) -> Context:
    """Return the context of a header; an empty one for none, and for a malformed one."""
    return PROPAGATOR.extract({"traceparent": traceparent} if traceparent else {}, Context())


def _links(identity: SpanIdentity, parent: Context) -> Sequence[Link]:
    if not identity.linked_id:
        return []
    context = trace.get_current_span(parent).get_span_context()
    trace_id = context.trace_id if context.is_valid else identity.trace_id
    flags = context.trace_flags if context.is_valid else TraceFlags(TraceFlags.SAMPLED)
    return [Link(SpanContext(trace_id, identity.linked_id, True, flags))]


class OtelSpan:
    """A span of the SDK."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def __enter__(self) -> Self:
        self._token = contexts.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        contexts.detach(self._token)
        if kind is not None and issubclass(kind, Exception) and not issubclass(kind, INTERRUPTIONS):
            self.fail(kind.__name__)  # not the message, which may quote what callers sent
        self._span.end()

    def rename(self, name: str) -> None:
        """Replace the name."""
        self._span.update_name(name)

    def set(self, name: str, value: Value | None) -> None:
        """Set an attribute; None: leave it unset."""
        if value is not None:
            self._span.set_attribute(name, value)

    def event(self, name: str) -> None:
        """Note that something has happened now."""
        self._span.add_event(name)

    def fail(self, type: str) -> None:
        """Mark the work as failed."""
        _fail(self._span, type)


def _fail(span: trace.Span, error_type: str) -> None:
    span.set_attribute(ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR))


class ChosenIds(RandomIdGenerator):
    """Gives the next span of a thread the ids that were chosen for it; all others random ones."""

    def __init__(self) -> None:
        self._chosen = threading.local()

    def choose(self, identity: SpanIdentity) -> None:
        """Choose the ids of the next span of this thread."""
        self._chosen.span_id, self._chosen.trace_id = identity.span_id, identity.trace_id

    def generate_span_id(self) -> int:
        """Return the chosen id, once, or a random one."""
        chosen, self._chosen.span_id = getattr(self._chosen, "span_id", 0), 0
        return chosen or super().generate_span_id()

    def generate_trace_id(self) -> int:
        """Return the chosen id, once, or a random one."""
        chosen, self._chosen.trace_id = getattr(self._chosen, "trace_id", 0), 0
        return chosen or super().generate_trace_id()


class ExporterWithOneLine(SpanExporter):
    """Exports spans, and logs one line when that begins to fail and one when it works again."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch; it is lost if the collector does not take it."""
        try:
            result = self._exporter.export(spans)
        except Exception:  # noqa: BLE001 - whatever a collector answers must end no thread
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            if not self._lost:
                log.warning("Traces are lost: OTEL_EXPORTER_OTLP_ENDPOINT does not take them. Jobs are not affected")
            self._lost += len(spans)
        elif self._lost:
            log.info("Traces are exported again; %d spans were lost", self._lost)
            self._lost = 0
        return result

    def shutdown(self) -> None:
        """Stop an export that waits for the next try."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing: this exporter queues nothing."""
        return True

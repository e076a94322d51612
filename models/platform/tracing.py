"""Spans of traces, exported over OTLP where OTEL_EXPORTER_OTLP_ENDPOINT is set, and otherwise nothing.

Without that variable each function here returns at once, and OpenTelemetry's SDK is not imported. `otel_tracer` makes
the spans, `span_names` has the names of all spans and attributes.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

if TYPE_CHECKING:
    from models.platform.otel_tracer import OtelTracer

Kind = Literal["internal", "server", "client", "producer", "consumer"]

#: The value of an attribute.
Value = str | int | float | bool | Sequence[str]

#: The variables of which one turns tracing on.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

#: Turns on prompts and answers in spans, as the semantic conventions for generative AI name it.
CAPTURE_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


@dataclass(frozen=True, slots=True)
class SpanIdentity:
    """Where a span belongs that is not below the present one.

    traceparent  the W3C context of its parent; None: it has none, and its trace has the id `trace_id`
    span_id      the id of the span; 0: a new one
    trace_id     the id of a trace that begins with it; 0: a new one
    linked_id    the id of an earlier span of the trace that it links to; 0: none
    """

    traceparent: str | None = None
    span_id: int = 0
    trace_id: int = 0
    linked_id: int = 0


class Span(Protocol):
    """A span: the present one within its block. An exception that leaves the block makes it an error."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def rename(self, name: str) -> None:
        """Replace the name, where it is known only in the end."""

    def set(self, name: str, value: Value | None) -> None:
        """Set an attribute; None: leave it unset."""

    def event(self, name: str) -> None:
        """Note that something has happened now."""

    def fail(self, type: str) -> None:
        """Mark the work as failed, with the type of the error."""


class NoSpan:
    """A span that is not recorded."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def rename(self, name: str) -> None:
        """Do nothing."""

    def set(self, name: str, value: Value | None) -> None:
        """Do nothing."""

    def event(self, name: str) -> None:
        """Do nothing."""

    def fail(self, type: str) -> None:
        """Do nothing."""


NO_SPAN = NoSpan()

_tracer: "OtelTracer | None" = None


def is_configured(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the environment asks for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none":
        return False
    return any(environment.get(name, "").strip() for name in ENDPOINTS)


def start_tracing(process: str, version: str) -> None:
    """Export the spans of this process from now on, if the environment asks for traces.

    process  the name of the command, an attribute of all spans
    """
    global _tracer
    if _tracer is None and is_configured():
        from models.platform.otel_tracer import OtelTracer

        _tracer = OtelTracer(process, version)


def stop_tracing() -> None:
    """Export what is queued, for at most two seconds, and record nothing from now on."""
    global _tracer
    tracer, _tracer = _tracer, None
    if tracer is not None:
        tracer.close()


def tracing_is_on() -> bool:
    """Return whether this process exports spans."""
    return _tracer is not None


def captures_content() -> bool:
    """Return whether spans may have prompts and answers."""
    return _tracer is not None and os.environ.get(CAPTURE_CONTENT, "").strip().lower() == "true"


def span(
    name: str,
    kind: Kind = "internal",
    attributes: Mapping[str, Value] | None = None,
    identity: SpanIdentity | None = None,
) -> Span:
    """Return a span to enter: below the present one, unless an identity says where it belongs."""
    return NO_SPAN if _tracer is None else _tracer.span(name, kind, attributes, identity)


def record_span(
    name: str,
    kind: Kind,
    attributes: Mapping[str, Value],
    identity: SpanIdentity,
    seconds: tuple[float, float],
    error_type: str,
) -> None:
    """Export a failed span whose process cannot: from the first to the last of these times since the epoch."""
    if _tracer is not None:
        _tracer.record(name, kind, attributes, identity, seconds, error_type)


def current_traceparent() -> str | None:
    """Return the present span as the value of a W3C header `traceparent`; None: nothing is traced."""
    return None if _tracer is None else _tracer.traceparent()


def trace_headers() -> dict[str, str]:
    """Return the headers with which a request to another server continues the present trace."""
    traceparent = current_traceparent()
    return {} if traceparent is None else {"traceparent": traceparent}


def current_trace_id() -> str | None:
    """Return the trace id of the present span: 32 hexadecimal digits; None: nothing is traced."""
    traceparent = current_traceparent()
    return None if traceparent is None else traceparent[3:35]


def current_span_id() -> str | None:
    """Return the id of the present span: 16 hexadecimal digits; None: nothing is traced."""
    traceparent = current_traceparent()
    return None if traceparent is None else traceparent[36:52]

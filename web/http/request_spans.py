"""The span of a request: below that of its caller, if the header `traceparent` names one."""

from collections.abc import Mapping

from starlette.types import Scope

from models.platform import span_names, tracing
from models.platform.tracing import Span, SpanIdentity, Value
from web.http.access_log import PROBES, loggable_path
from web.http.metrics import METHODS


def request_span(scope: Scope) -> Span:
    """Return the span of a request; none for probes and scrapes. Its name follows with `note_response`."""
    if not tracing.tracing_is_on() or scope["path"] in PROBES:
        return tracing.NO_SPAN
    method = _method(scope)
    attributes: dict[str, Value] = {span_names.HTTP_METHOD: method, span_names.URL_SCHEME: scope["scheme"]}
    return tracing.span(method, "server", attributes, SpanIdentity(_traceparent(scope)))


def response_headers(span: Span) -> Mapping[str, str]:
    """Return the header that names the span of the present request to its caller; none without a span."""
    traceparent = None if span is tracing.NO_SPAN else tracing.current_traceparent()
    return {} if traceparent is None else {"traceresponse": traceparent}


def note_response(span: Span, scope: Scope, route: str, status: int) -> None:
    """Name the span by its route, and note the status; errors of the server make it an error."""
    if span is tracing.NO_SPAN:
        return
    span.rename(span_names.request(_method(scope), route))
    span.set(span_names.HTTP_ROUTE, route)
    span.set(span_names.URL_PATH, loggable_path(route, scope.get("path_params") or {}))
    span.set(span_names.HTTP_STATUS, status or None)
    if status >= 500:
        span.fail(str(status))


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in METHODS else "_OTHER"


def _traceparent(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return str(value, "latin-1")
    return None

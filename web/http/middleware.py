"""The outermost ASGI layer: request ids, responses to errors, request metrics, and the access log."""

import asyncio
import logging
import re
import time
from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.platform.errors import InvalidRequest, Unavailable
from models.platform.ids import new_id
from models.platform.log_context import LogContext, set_context
from models.platform.redaction import redact
from models.platform.tracing import Span
from web.http import errors
from web.http.access_log import UNMATCHED, log_request
from web.http.bodies import BodyTooLarge, DrainingResponse
from web.http.hosts import AllowedHosts
from web.http.metrics import observe_request
from web.http.request_spans import note_response, request_span, response_headers

log = logging.getLogger(__name__)

#: Request ids of callers that may be logged and sent back.
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


#: Headers of responses without their own: they are stored by no cache, and shown as the type that they have.
PRIVATE = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))

#: Admits every Host header.
ANY_HOST = AllowedHosts(frozenset({"*"}))


class RequestMiddleware:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, hosts: AllowedHosts = ANY_HOST) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; every exception becomes a response."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        scope["request_id"] = request_id(scope)
        sender = scope["response_sender"] = ResponseSender(scope["request_id"], send)
        set_context(LogContext(request_id=redact(scope["request_id"])))
        with request_span(scope) as span:
            await self._serve(scope, receive, sender, span)

    async def _serve(self, scope: Scope, receive: Receive, sender: "ResponseSender", span: Span) -> None:
        sender.add_headers(response_headers(span))
        try:
            check_host(scope, self.hosts)
            await self.app(scope, receive, sender.send)
        except ClientDisconnect:
            log.debug("Request %s: the client disconnected", sender.request_id)
        except asyncio.CancelledError:
            # The process is shutting down and its grace period is over; uvicorn would send a bare status 500.
            if sender.status:
                raise
            await sender.fail(Unavailable("This server is shutting down; retry the request."), scope, receive)
        except Exception as error:  # noqa: BLE001 - the one place where errors become responses
            await sender.fail(error, scope, receive)
        finally:
            # The server holds the scope: a reference cycle that only the garbage collector would free.
            del scope["response_sender"]
            route = getattr(scope.get("endpoint"), "path", UNMATCHED)
            log_request(scope, route, sender.status, sender.started)
            note_response(span, scope, route, sender.status)
        if sender.status:
            observe_request(route, scope["method"], sender.status, sender.seconds)


class ResponseSender:
    """The sending side of one request. `seconds` is the time to the first byte, which streams have too."""

    def __init__(self, request_id: str, send: Send) -> None:
        self.request_id = request_id
        self.status = 0
        self.seconds = 0.0
        self.headers: dict[bytes, bytes] = {}
        self.started = time.perf_counter()
        self._send = send

    async def send(self, message: Message) -> None:
        """Send a message, with the request id, the time and the added headers in the response's head."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.seconds = time.perf_counter() - self.started
            common = [
                (b"x-request-id", self.request_id.encode()),
                (b"openai-processing-ms", b"%d" % (self.seconds * 1000)),
            ]
            own = {name for name, _ in message["headers"]}
            added = [header for header in [*self.headers.items(), *PRIVATE] if header[0] not in own]
            message["headers"] = [*message["headers"], *added, *common]
        await self._send(message)

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Add headers to the response, also if it will be an error. The response's own headers replace them."""
        self.headers |= {name.encode(): value.encode("latin-1") for name, value in headers.items()}

    async def fail(self, error: Exception, scope: Scope, receive: Receive) -> None:
        """Send the response to an error; after the head has been sent, log it: the connection is closed."""
        response = errors.error_response(error, self.request_id)
        if self.status:
            log.error("Request %s failed after its response had begun", self.request_id, exc_info=error)
        elif isinstance(error, BodyTooLarge) or scope.get("unread_body"):
            await DrainingResponse(response)(scope, receive, self.send)
        else:
            await response(scope, receive, self.send)


def check_host(scope: Scope, allowed: AllowedHosts) -> None:
    """Check that HTTP/1.1 requests have one Host header (RFC 9112, 3.2): a proxy may have checked the other of two.

    Raises InvalidRequest, and HTTPException for the name of another server.
    """
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) > 1 or (not hosts and scope["http_version"] == "1.1"):
        raise InvalidRequest("Send exactly one Host header.", code="repeated_header" if hosts else "missing_header")
    if hosts:
        allowed.check(hosts[0])


def request_id(scope: Scope) -> str:
    """Return the caller's `X-Request-Id` if it is well-formed, otherwise a new id."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return new_id("req")

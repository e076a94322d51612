"""The outermost layer: gives each request an id, answers what went wrong, counts and times."""

import asyncio
import logging
import re
import time
from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.platform.errors import InvalidRequest, Unavailable
from models.platform.ids import new_id
from web.health.metrics import Metrics
from web.http import errors
from web.http.bodies import BodyTooLarge, Lingering

log = logging.getLogger(__name__)

#: Ids from callers that are fit for our log and our headers.
SANE = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class Edge:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; no exception leaves here."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        scope["request_id"] = request_id(scope)
        exchange = scope["exchange"] = Exchange(scope["request_id"], send)
        try:
            check_host(scope)
            await self.app(scope, receive, exchange.send)
        except ClientDisconnect:
            log.debug("request %s: the client left", exchange.request_id)
        except asyncio.CancelledError:
            # The process leaves, and the grace is over that it gave its requests: uvicorn would answer with a bare 500.
            if exchange.status:
                raise
            await exchange.fail(Unavailable("This server is leaving; another one may answer."), scope, receive)
        except Exception as error:  # noqa: BLE001 - the one place where errors become answers
            await exchange.fail(error, scope, receive)
        finally:
            del scope[
                "exchange"
            ]  # the server's side holds the scope: a ring that only the garbage collector would open
        if exchange.status:
            route = getattr(scope.get("endpoint"), "path", "unmatched")
            self.metrics.observe(route, scope["method"], exchange.status, exchange.seconds)


class Exchange:
    """The sending side of one request. `seconds` is the time to the first byte, which is what a stream has too."""

    def __init__(self, request_id: str, send: Send) -> None:
        self.request_id = request_id
        self.status = 0
        self.seconds = 0.0
        self.headers: list[tuple[bytes, bytes]] = []
        self._begin = time.perf_counter()
        self._send = send

    async def send(self, message: Message) -> None:
        """Pass a message on, with what every answer tells: its id, its time, and what `tell` was told."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.seconds = time.perf_counter() - self._begin
            own = [
                (b"x-request-id", self.request_id.encode()),
                (b"openai-processing-ms", b"%d" % (self.seconds * 1000)),
            ]
            message["headers"] = [*message["headers"], *self.headers, *own]
        await self._send(message)

    def tell(self, headers: Mapping[str, str]) -> None:
        """More headers for the answer, whatever it will be."""
        self.headers += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]

    async def fail(self, error: Exception, scope: Scope, receive: Receive) -> None:
        """Answer an error; after the first byte it is too late, and the connection closes."""
        response = errors.answer(error, self.request_id)
        if self.status:
            log.error("request %s failed in mid-answer", self.request_id, exc_info=error)
        elif isinstance(error, BodyTooLarge):
            await Lingering(response)(scope, receive, self.send)
        else:
            await response(scope, receive, self.send)


def check_host(scope: Scope) -> None:
    """HTTP/1.1 names one host (RFC 9112, 3.2). Of two, a proxy before us may have looked at the other one."""
    hosts = sum(name == b"host" for name, _ in scope["headers"])
    if hosts > 1 or (hosts == 0 and scope["http_version"] == "1.1"):
        raise InvalidRequest("Send one Host header.", code="repeated_header" if hosts else "missing_header")


def request_id(scope: Scope) -> str:
    """The caller's own id when it is sane, or a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SANE.fullmatch(value):
            return str(value, "ascii")
    return new_id("req")

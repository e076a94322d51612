"""Handle clients that disconnect early: detect it, choose what happens to their job, and finish work without them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Literal, cast

import anyio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.platform.errors import InvalidRequest

log = logging.getLogger(__name__)

#: Request header: `finish` lets the job of a disconnected client run on, `cancel` cancels it at once.
HEADER = "x-sangha-on-disconnect"

#: Awaited when a client disconnects before its response is complete.
OnDisconnect = Callable[[], Awaitable[None]]


#: What happens to a job when its client disconnects. With `default` it is cancelled if its result cannot be read later.
DisconnectPolicy = Literal["cancel", "finish", "default"]


def disconnect_policy(headers: Headers) -> DisconnectPolicy:
    """Return the value of the header.

    Raises InvalidRequest for an unknown value, so call it before the job is created.
    """
    policy = headers.get(HEADER, "default").strip().lower()
    if policy in ("cancel", "finish") or HEADER not in headers:
        return cast(DisconnectPolicy, policy)
    raise InvalidRequest(f"'{HEADER}' should be 'cancel' or 'finish'.", param=HEADER)


async def wait_for_disconnect(receive: Receive) -> None:
    """Wait until the client has disconnected or received the whole response: ASGI sends `http.disconnect` for both."""
    while (await receive())["type"] != "http.disconnect":
        pass


class DeferredResponse:
    """An ASGI response that is computed while its client is watched; a disconnect cancels the computation."""

    def __init__(
        self, compute: Callable[[], Coroutine[Any, Any, Response]], on_disconnect: OnDisconnect | None = None
    ) -> None:
        self._compute = compute
        self._on_disconnect = on_disconnect
        self._headers: dict[str, str] = {}

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Add headers to the response. Call it before the response is sent."""
        self._headers |= headers

    async def compute(self) -> Response:
        """Compute the response for another response that sends it; a cancellation counts as a disconnect."""
        try:
            response = await self._compute()
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await self.abandon()
            raise
        response.headers.update(self._headers)
        return response

    async def abandon(self) -> None:
        """Do what a disconnect of the client asks for."""
        if self._on_disconnect is not None:
            await self._on_disconnect()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Compute the response and send it. Raises ClientDisconnect, and what the computation raises."""
        computation = asyncio.create_task(self._compute())
        disconnect = asyncio.create_task(wait_for_disconnect(receive))
        try:
            await asyncio.wait((computation, disconnect), return_when=asyncio.FIRST_COMPLETED)
            disconnected = not computation.done()
        finally:
            computation.cancel()
            disconnect.cancel()
            await asyncio.gather(computation, disconnect, return_exceptions=True)
        if disconnected:
            await self.abandon()
            raise ClientDisconnect
        response = computation.result()
        response.headers.update(self._headers)
        await response(scope, receive, send)


def run_in_background(work: Callable[[], object]) -> None:
    """Run `work` in a thread, independently of the request: a disconnect cancels the request, but not this."""
    asyncio.get_running_loop().run_in_executor(None, work).add_done_callback(_log_failure)


def _log_failure(done: "asyncio.Future[object]") -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.warning("Background work after a response failed: %r", error)

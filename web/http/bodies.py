"""Read request bodies within limits, and parse them, see `pipelines.requests.json_objects`."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.platform.errors import TooLarge
from pipelines.requests.json_objects import parse_object
from pipelines.requests.validation import Model, validate
from web.http.threads import run_in_thread

Parsed = TypeVar("Parsed")

#: Bytes of a body. A turn that fills a context of 128k tokens has about half a megabyte.
MAX_BYTES = 2 * 1024 * 1024

#: Bytes of a body on a public route: an e-mail address, a password, a token.
MAX_PUBLIC_BYTES = 64 * 1024

#: Seconds within which a whole body must arrive.
TIMEOUT = 30.0

#: Bytes of a body that is parsed on the event loop, in up to 3 ms.
MAX_INLINE_BYTES = 64 * 1024

#: Limits of discarding a rejected body, for clients that send all of it before they read the response.
DRAIN_BYTES, DRAIN_SECONDS = 128 * 1024 * 1024, 20.0


class BodyTooLarge(TooLarge):
    """The body exceeds its limit; the rest of it has not been read."""

    def __init__(self, limit: int = MAX_BYTES) -> None:
        super().__init__(f"The body is larger than the limit of {limit} bytes.")


async def read(scope: Scope, receive: Receive, limit: int = MAX_BYTES) -> bytes:
    """Read the whole body. Raises BodyTooLarge, ClientDisconnect, and HTTPException 408 after `TIMEOUT`."""
    if declared_length(scope) > limit:
        raise BodyTooLarge(limit)
    try:
        async with asyncio.timeout(TIMEOUT):
            return await _collect(receive, limit)
    except TimeoutError:
        raise HTTPException(408, "The body took too long to arrive", {"connection": "close"}) from None


def parse(body: bytes, model: type[Model]) -> Model:
    """Parse the body as a model. Raises InvalidRequest, naming the parameter."""
    return validate(model, parse_object(body))


async def parse_off_loop(body: bytes, model: type[Model]) -> Model:
    """Parse the body like `parse`, in a thread if it is large."""
    return await off_loop(body, partial(parse, model=model))


async def off_loop(body: bytes, parse_body: Callable[[bytes], Parsed]) -> Parsed:
    """Call `parse_body`, in a thread if the body is large: two megabytes take up to 100 ms."""
    return parse_body(body) if len(body) < MAX_INLINE_BYTES else await run_in_thread(parse_body, body)


class DrainingResponse:
    """An error response that is sent before its request has been read; the rest of the body is discarded afterwards.

    Closing a connection with unread data resets it, and the client would see that instead of the response.
    """

    def __init__(self, response: Response) -> None:
        self.response = response
        self.response.headers["connection"] = "close"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, discard the rest of the body within limits, and close the connection."""
        response = self.response
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        await _drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    drained = 0
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while drained < DRAIN_BYTES:
                message = await receive()
                drained += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def declared_length(scope: Scope) -> int:
    """Return the value of the Content-Length header in bytes; 0 without a valid one."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


async def _collect(receive: Receive, limit: int) -> bytes:
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise BodyTooLarge(limit)
        if not message.get("more_body", False):
            return b"".join(chunks)

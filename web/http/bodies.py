"""Read request bodies within limits, and parse them strictly.

A parsed body can be stored: it is valid UTF-8 without NUL characters (Postgres cannot store them) and without duplicate
keys (parsers differ in which one they take), and its depth is limited.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.platform.errors import InvalidRequest, TooLarge
from models.platform.texts import truncate
from web.http.threads import run_in_thread
from web.http.validation import Model, validate

Parsed = TypeVar("Parsed")

#: Bytes of a body. A turn that fills a context of 128k tokens has about half a megabyte.
MAX_BYTES = 2 * 1024 * 1024

#: Bytes of a body on a public route: an e-mail address, a password, a token.
MAX_PUBLIC_BYTES = 64 * 1024

#: Seconds within which a whole body must arrive.
TIMEOUT = 30.0

#: Levels of nesting. JSON Schemas of real tools have about ten.
MAX_DEPTH = 100

#: Values in a body. Parsing a million empty lists blocks the process for seconds.
MAX_VALUES = 100_000

#: Bytes of a body that is parsed on the event loop, in up to 3 ms.
MAX_INLINE_BYTES = 64 * 1024

#: A JSON string, up to its end or that of the body.
STRING = re.compile(rb'"(?:[^"\\]|\\.|\\\Z)*+(?:"|\Z)', re.DOTALL)

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


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse the body as a JSON object. Raises InvalidRequest."""
    try:
        _check_size(body)
        value = orjson.loads(body)
        if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
            _check_depth(value)
        json.loads(body, object_pairs_hook=_reject_duplicates)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body should be a JSON object.", code="invalid_json")
    if b"\\u0000" in body:
        _check_characters(value)
    return value


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


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        duplicate, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {truncate(duplicate)!r} occurs twice in an object")
    return members


def _check_size(body: bytes) -> None:
    """Count the delimiters before values; strings, which may contain them too, are removed only when there are many."""
    if _delimiters(body) > MAX_VALUES and _delimiters(STRING.sub(b"", body)) > MAX_VALUES:
        raise ValueError(f"it has more than {MAX_VALUES} values")


def _delimiters(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{") + body.count(b",")


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _check_characters(value: object) -> None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str) and "\0" in item:
            raise InvalidRequest("The body contains a NUL character (\\u0000).", code="invalid_character")
        stack.extend(_children(item))
        if isinstance(item, dict):
            stack.extend(item.keys())


def _children(value: object) -> Iterator[Any]:
    if isinstance(value, dict):
        return iter(value.values())
    return iter(value) if isinstance(value, list) else iter(())

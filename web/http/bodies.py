"""Request bodies: read within bounds, parsed strictly, refused with the name of what is wrong.

What passes here can be stored: valid UTF-8, no NUL characters (Postgres text can't hold them), no key twice in an
object (two readers would each take another one), bounded depth.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.platform.errors import InvalidRequest, TooLarge
from web.http.validation import cut, validate

#: Bytes of a body. A turn that fills a context of 128k tokens has about half a megabyte.
LARGEST = 2 * 1024 * 1024

#: Bytes of what anybody may send, without showing who they are: an address, a password, a token.
LARGEST_PUBLIC = 64 * 1024

#: Seconds that a whole body may take to arrive.
PATIENCE = 30.0

#: Levels of nesting. JSON Schemas of real tools have about ten.
DEEPEST = 100

#: Values in a body. Reading a million empty lists takes seconds, in which nobody else is served.
MOST_VALUES = 100_000

#: A string of JSON, up to its end or that of the body.
STRING = re.compile(rb'"(?:[^"\\]|\\.|\\\Z)*+(?:"|\Z)', re.DOTALL)

#: What is read and thrown away, so that a client that sends first and reads later sees why it was refused.
LINGER_BYTES, LINGER_SECONDS = 128 * 1024 * 1024, 20.0

Model = TypeVar("Model", bound=BaseModel)


class BodyTooLarge(TooLarge):
    """The body has more bytes than it may; the rest of it has not been read."""

    def __init__(self, most: int = LARGEST) -> None:
        super().__init__(f"The body is larger than {most} bytes.")


async def read(scope: Scope, receive: Receive, most: int = LARGEST) -> bytes:
    """The whole body. Raises BodyTooLarge, ClientDisconnect, or a 408 when the body takes too long to arrive."""
    if declared_length(scope) > most:
        raise BodyTooLarge(most)
    try:
        async with asyncio.timeout(PATIENCE):
            return await _collect(receive, most)
    except TimeoutError:
        raise HTTPException(408, "The body took too long to arrive", {"connection": "close"}) from None


def parse(body: bytes, model: type[Model]) -> Model:
    """The body as a model. Raises InvalidRequest that names the parameter."""
    return validate(model, parse_object(body))


def parse_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises InvalidRequest."""
    try:
        _check_size(body)
        value = orjson.loads(body)
        if body.count(b"[") + body.count(b"{") > DEEPEST:
            _check_depth(value)
        json.loads(body, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body should be a JSON object.", code="invalid_json")
    if b"\\u0000" in body:
        _check_characters(value)
    return value


class Lingering:
    """A refusal sent before its request has been read: the answer first, then the rest of the body, thrown away.

    Closing the connection on unread data resets it, and the client would see that instead of the answer.
    """

    def __init__(self, response: Response) -> None:
        self.response = response
        self.response.headers["connection"] = "close"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, drain within bounds, close."""
        response = self.response
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        await _drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    drained = 0
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while drained < LINGER_BYTES:
                message = await receive()
                drained += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def declared_length(scope: Scope) -> int:
    """What the request says it has, in bytes; 0 where it does not say."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


async def _collect(receive: Receive, most: int) -> bytes:
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > most:
            raise BodyTooLarge(most)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        repeated, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {cut(repeated)!r} stands twice in an object")
    return members


def _check_size(body: bytes) -> None:
    """By the marks that values stand behind; those within strings are looked for only where there are many."""
    if _marks(body) > MOST_VALUES and _marks(STRING.sub(b"", body)) > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES} values")


def _marks(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{") + body.count(b",")


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {DEEPEST} levels")


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

"""Decompress request bodies (RFC 9110, 8.4) in bounded pieces, off the event loop.

Nothing is decompressed ahead of its reader, which counts the pieces against the limit of the body: of a bomb no more
than the limit and one piece is ever in memory.
"""

import zlib

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

from models.platform.errors import InvalidRequest
from web.http.bodies import BodyTooLarge
from web.http.threads import run_in_thread

#: The formats of zlib by encoding; `deflate` is the format of zlib with its header.
FORMATS = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}

#: Bytes that are decompressed at a time, in about a millisecond.
PIECE = 128 * 1024


def decoded(scope: Scope, receive: Receive, limit: int) -> Receive:
    """Return a `receive` that returns the decompressed body; the same one for a body that is not compressed.

    limit  of the compressed bytes, too: an empty block has five bytes and decompresses to nothing

    Raises HTTPException 415 for an encoding that is not supported. The returned function raises InvalidRequest and
    BodyTooLarge.
    """
    encoding = b", ".join(value for name, value in scope["headers"] if name == b"content-encoding").strip().lower()
    if encoding in (b"", b"identity"):
        return receive
    if encoding not in FORMATS:
        name = encoding[:50].decode("latin-1")
        message = f"The content encoding '{name}' is not supported; send the body with gzip, deflate or none"
        raise HTTPException(415, message, {"accept-encoding": "gzip, deflate"})
    return DecodedBody(receive, FORMATS[encoding], limit)


class DecodedBody:
    """Receives the messages of a decompressed body."""

    def __init__(self, receive: Receive, wbits: int, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._decompressor = zlib.decompressobj(wbits)
        self._compressed = b""
        self._size = 0
        self._is_full = False  # the last piece was, so zlib may have more without further input
        self._more_body = True

    async def __call__(self) -> Message:
        """Return the next message. Raises InvalidRequest for a damaged body, and BodyTooLarge."""
        if self._more_body and not self._compressed and not self._is_full:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return message
            self._take(message)
        piece = await run_in_thread(self._decompress)
        more = self._more_body or self._is_full or bool(self._compressed)
        if not more and self._size and not self._decompressor.eof:
            raise _damaged("it ends too early")
        return {"type": "http.request", "body": piece, "more_body": more}

    def _take(self, message: Message) -> None:
        self._compressed, self._more_body = message.get("body", b""), message.get("more_body", False)
        self._size += len(self._compressed)
        if self._size > self._limit:
            raise BodyTooLarge(self._limit)

    def _decompress(self) -> bytes:
        """Return up to PIECE bytes, and keep what remains of the input."""
        if self._decompressor.eof and self._compressed:
            raise _damaged("data follows its end")
        try:
            piece = self._decompressor.decompress(self._compressed, PIECE)
        except zlib.error as error:
            raise _damaged(str(error)) from None
        self._is_full = len(piece) == PIECE
        self._compressed = self._decompressor.unconsumed_tail or self._decompressor.unused_data
        return piece


def _damaged(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The compressed body cannot be read: {reason}.", code="invalid_content_encoding")

"""uvicorn's HTTP protocol with the bounds that it lacks: on slow and endless heads, on what comes after an answer, and
on clients that don't read.

uvicorn arms a timer only between two requests; without these, a client could hold a connection for ever with one byte.
It also takes what follows a body for headers (RFC 9110, 6.5, forbids that): a proxy that looks at heads would not have
seen them.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Seconds from the first byte of a connection or request to the end of its head.
HEAD_SECONDS = 15.0

#: Bytes of a head that has not ended: request line and headers; and of what is neither head nor body, in one stretch:
#: extensions of chunks, and trailers.
HEAD_BYTES = 64 * 1024

#: Seconds in which a body may end whose request has already been answered.
REST_SECONDS = 30.0

#: Seconds that what we have written may wait for a client that doesn't read.
STALL_SECONDS = 30.0

#: The application never sees a head that is too large, so its answer is made here.
TOO_LARGE = b"\r\n".join(
    [
        b"HTTP/1.1 431 Request Header Fields Too Large",
        b"connection: close",
        b"content-type: application/json",
        b"",
        b'{"error":{"message":"The headers are too large.","type":"invalid_request_error","param":null,"code":null}}',
    ]
)


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_size = 0
        self._framing = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connects, and should now speak."""
        super().connection_made(transport)
        self._arm(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and its timers with it."""
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes arrive."""
        if self._in_head:
            self._head_size += len(data)
        self._framing += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head and self._head_size > HEAD_BYTES:
            self.transport.write(TOO_LARGE)
            self.transport.close()
        elif not self._in_head and self._framing > HEAD_BYTES:
            self._drop()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head, self._head_size = True, 0
        self._arm(HEAD_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. A trailer, which comes after the body, counts for nothing."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has ended; from here the application sets the bounds."""
        self._in_head, self._framing = False, 0
        self._disarm()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._framing = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has ended, before or after its answer."""
        self._framing = 0
        self._disarm()
        super().on_message_complete()
        if self.cycle.response_complete:
            # uvicorn has armed its keep-alive timer with the answer, and disarmed it with the first byte since.
            self._arm(self.timeout_keep_alive)

    def on_response_complete(self) -> None:
        """The answer has been written; what is left of the body is thrown away as it comes."""
        super().on_response_complete()
        if self.cycle.more_body:
            self._arm(REST_SECONDS)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        super().pause_writing()
        self._stall = self.loop.call_later(STALL_SECONDS, self._drop)

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _drop(self) -> None:
        self.transport.abort()

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, self._drop)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

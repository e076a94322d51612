"""uvicorn's HTTP protocol with the limits that it lacks: on connections of one address, on slow and endless heads, on
bodies that continue after the response, and on clients that do not read.

uvicorn starts a timer only between two requests, so a client could keep a connection open for ever with one byte. It
also treats trailers as headers, which RFC 9110, 6.5, forbids: a proxy that filters headers has not checked them.
"""

import asyncio
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Seconds from the start of a connection or the first byte of a request to the end of its head.
HEAD_SECONDS = 15.0

#: Bytes of a head (request line and headers), and consecutive bytes that belong neither to a head nor to a body: chunk
#: extensions and trailers.
HEAD_BYTES = 64 * 1024

#: Seconds within which a body must end after its request has been answered.
REST_SECONDS = 30.0

#: Seconds for which written data may wait for a client that does not read.
STALL_SECONDS = 30.0

#: The application never receives a head that is too large, so the response is built here.
TOO_LARGE = b"\r\n".join(
    [
        b"HTTP/1.1 431 Request Header Fields Too Large",
        b"connection: close",
        b"content-type: application/json",
        b"",
        b'{"error":{"message":"The request headers are larger than 65536 bytes.",'
        b'"type":"invalid_request_error","param":null,"code":null}}',
    ]
)


class OpenConnections(Protocol):
    """Counts the open connections of each client address. `web.access.connection_limit` implements it."""

    def open(self, ip: str) -> bool:
        """Count a new connection; returns False if it is one too many."""

    def close(self, ip: str) -> None:
        """Count the end of a connection."""


class UnknownLength(int):
    """The expected length of a body that ends with the connection: anything may be written."""

    def __lt__(self, other: int) -> bool:
        return False

    def __sub__(self, other: int) -> "UnknownLength":
        return self


class BoundedProtocol(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limit: OpenConnections = self.config.app.state.connection_limit  # type: ignore[union-attr]
        self._is_counted = False
        self._timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_size = 0
        self._framing = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first head, or reset a connection of an address that has too many."""
        super().connection_made(transport)
        self._is_counted = self.client is not None and self._limit.open(self.client[0])
        if self._is_counted or self.client is None:  # a Unix socket has no address
            self._start_timer(HEAD_SECONDS)
        else:
            self._abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all timers, and make room for another connection of the address."""
        if self._is_counted and self.client is not None:
            self._is_counted = False
            self._limit.close(self.client[0])
        self._stop_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count and parse received bytes, and reject a head or framing that exceeds its limit."""
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
            self._abort()

    def on_message_begin(self) -> None:
        """Start counting a new head."""
        super().on_message_begin()
        self._in_head, self._head_size = True, 0
        self._start_timer(HEAD_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Accept a header, and ignore a trailer, which follows the body."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the timer of the head; from here the application limits the body."""
        self._in_head, self._framing = False, 0
        self._stop_timer()
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0":  # RFC 9112, 6.1: such a client does not know chunks
            self.cycle.chunked_encoding, self.cycle.expected_content_length = False, UnknownLength()

    def on_body(self, body: bytes) -> None:
        """Reset the count of framing bytes."""
        self._framing = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the timer of the body, and restart the keep-alive timer if the response was complete before."""
        self._framing = 0
        self._stop_timer()
        super().on_message_complete()
        if self.cycle.response_complete:
            # uvicorn started its keep-alive timer with the response, and stopped it at the next received byte.
            self._start_timer(self.timeout_keep_alive)

    def on_response_complete(self) -> None:
        """Limit the time for the rest of the body, which is discarded."""
        super().on_response_complete()
        if self.cycle.more_body:
            self._start_timer(REST_SECONDS)

    def pause_writing(self) -> None:
        """Start the timer for a client that does not read."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self._abort)

    def resume_writing(self) -> None:
        """Stop the timer: the client has read what was written."""
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _abort(self) -> None:
        self.transport.abort()

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

"""HTTP/1.1 connections of httpcore's pool whose responses httptools parses.

httpcore parses with h11, which is written in Python and returns each chunk of a body alone: a quarter of the CPU time
that a turn of 20 tokens costs a worker. Here all chunks that have arrived together are one piece of the body.
Connecting, TLS and the pool are httpcore's.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

import httpcore
import httptools
from httpcore import (
    ConnectionInterface,
    ConnectionNotAvailable,
    NetworkStream,
    Origin,
    RemoteProtocolError,
    Request,
    Response,
    WriteError,
)

#: Bytes of a read, and the most bytes of a response's head.
READ_BYTES, MAX_HEAD = 1 << 16, 100 << 10


class Http1Pool(httpcore.ConnectionPool):
    """Keeps connections open and shares them between threads. HTTP/1.1 only, without a proxy."""

    def create_connection(self, origin: Origin) -> ConnectionInterface:
        """See httpcore."""
        return _PooledConnection(
            origin,
            ssl_context=self._ssl_context,
            keepalive_expiry=self._keepalive_expiry,
            network_backend=self._network_backend,
        )


class _PooledConnection(httpcore.HTTPConnection):
    """A connection that is established by its first request."""

    def handle_request(self, request: Request) -> Response:
        """See httpcore."""
        try:
            with self._request_lock:
                if self._connection is None:
                    stream = self._connect(request)
                    self._connection = Http1Connection(self._origin, stream, self._keepalive_expiry)
        except BaseException:
            self._connect_failed = True
            raise
        return self._connection.handle_request(request)


class Http1Connection(ConnectionInterface):
    """An established connection, for one request at a time."""

    def __init__(self, origin: Origin, stream: NetworkStream, keepalive: float | None) -> None:
        self._origin = origin
        self._stream = stream
        self._keepalive = keepalive
        self._expires_at: float | None = None
        self._in_use = threading.Lock()
        self._is_closed = False

    def handle_request(self, request: Request) -> Response:
        """Send a request and return the response once its head has arrived.

        Raises ConnectionNotAvailable where another thread uses the connection: the pool then takes another one.
        """
        if self._is_closed or not self._in_use.acquire(blocking=False):
            raise ConnectionNotAvailable
        try:
            with suppress(WriteError):  # the server may have responded before it closed the connection
                self._stream.write(encode(request), _timeout(request, "write"))
            parser = ResponseParser()
            while not parser.status:
                self.receive(parser, request)
        except BaseException:
            self.close()
            raise
        return Response(parser.status, headers=parser.headers, content=_Body(self, parser, request))

    def receive(self, parser: "ResponseParser", request: Request) -> None:
        """Wait for more of a response. Raises RemoteProtocolError."""
        data = self._stream.read(READ_BYTES, _timeout(request, "read"))
        if data:
            parser.feed(data)
        else:
            parser.feed_eof()

    def release(self, parser: "ResponseParser") -> None:
        """Keep the connection for another request if the response allows that."""
        if not parser.keeps_connection:
            self.close()
            return
        self._expires_at = time.monotonic() + self._keepalive if self._keepalive is not None else None
        self._in_use.release()

    def close(self) -> None:
        """See httpcore."""
        self._is_closed = True
        self._stream.close()

    def info(self) -> str:
        """See httpcore."""
        return f"{self._origin}, HTTP/1.1, {'CLOSED' if self._is_closed else 'OPEN'}"

    def can_handle_request(self, origin: Origin) -> bool:
        """See httpcore."""
        return origin == self._origin

    def is_available(self) -> bool:
        """See httpcore."""
        return self.is_idle()

    def is_idle(self) -> bool:
        """See httpcore."""
        return not self._is_closed and not self._in_use.locked()

    def is_closed(self) -> bool:
        """See httpcore."""
        return self._is_closed

    def has_expired(self) -> bool:
        """Return whether an idle connection is too old, or readable: the server has closed it."""
        if not self.is_idle():
            return False
        too_old = self._expires_at is not None and time.monotonic() > self._expires_at
        return too_old or bool(self._stream.get_extra_info("is_readable"))


class ResponseParser:
    """Parses one response.

    status            0 until the head is complete
    keeps_connection  the response is complete, and another request may follow
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_complete = False
        self.keeps_connection = False
        self._parts: list[bytes] = []
        self._head_bytes = 0
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Parse bytes. Raises RemoteProtocolError. What follows a complete response only spoils the connection."""
        self._head_bytes += 0 if self.status else len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.keeps_connection = False
            if not self.is_complete:
                raise RemoteProtocolError(f"invalid HTTP response: {error}") from error
        if not self.status and self._head_bytes > MAX_HEAD:
            raise RemoteProtocolError(f"the response's head is longer than {MAX_HEAD} bytes")

    def feed_eof(self) -> None:
        """End the response with the connection. Raises RemoteProtocolError where more of it was announced."""
        if not self.status:
            raise RemoteProtocolError("Server disconnected without sending a response.")
        names = {name.lower() for name, _ in self.headers}
        if names & {b"content-length", b"transfer-encoding"}:
            raise RemoteProtocolError("the server closed the connection before the end of the response")
        self.is_complete = True

    def take_body(self) -> bytes:
        """Return what has arrived of the body since the last call."""
        body, self._parts = b"".join(self._parts), []
        return body

    def on_message_begin(self) -> None:
        """Note that something follows a complete response."""
        self.keeps_connection = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header, unless it is a trailer."""
        if not self.status:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Note the status, unless another head follows this one (RFC 9110, 15.2)."""
        if self.status:
            return  # of another response
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = status
        else:
            self.headers.clear()

    def on_body(self, part: bytes) -> None:
        """Note a part of the body."""
        if not self.is_complete:
            self._parts.append(part)

    def on_message_complete(self) -> None:
        """Note the end of the response, unless another head follows."""
        if self.status and not self.is_complete:
            self.is_complete = True
            self.keeps_connection = self._parser.should_keep_alive()


class _Body:
    """The body of a response: an iterable of pieces, which the pool closes."""

    def __init__(self, connection: Http1Connection, parser: ResponseParser, request: Request) -> None:
        self._connection = connection
        self._parser = parser
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        while True:
            if body := self._parser.take_body():
                yield body
            if self._parser.is_complete:
                return
            self._connection.receive(self._parser, self._request)

    def close(self) -> None:
        self._connection.release(self._parser)


def encode(request: Request) -> bytes:
    """Return the bytes of a request, whose headers are ready to be sent."""
    assert isinstance(request.stream, Iterable)
    lines = [b"%b %b HTTP/1.1" % (request.method, request.url.target)]
    lines += [b"%b: %b" % header for header in request.headers]
    return b"\r\n".join([*lines, b"", b"".join(request.stream)])


def _timeout(request: Request, name: str) -> float | None:
    timeout: float | None = request.extensions["timeout"].get(name)
    return timeout

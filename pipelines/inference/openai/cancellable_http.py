"""HTTP connections whose reads can be cancelled while no data arrives.

httpx and http.client block until data arrives or a timeout breaks the connection. A slot must be free within
milliseconds of a stop, so reads poll `cancelled` in the reading thread: httpcore, the transport below httpx, accepts a
network backend for that.
"""

import select
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpcore
from httpcore import NetworkBackend, NetworkStream, ReadTimeout, SyncBackend

#: Seconds between two calls of `cancelled` while no data arrives.
POLL_INTERVAL = 0.02


class ReadCancelled(Exception):
    """A read was cancelled."""


class Exchange:
    """One request of a thread: whether its connection is new, and when it was sent and answered."""

    def __init__(self, cancelled: Callable[[], bool], timeout: float) -> None:
        self.cancelled = cancelled
        self.timeout = timeout
        self.is_on_new_connection = False
        self.has_response = False
        self.sent_at = time.monotonic()

    def was_unread(self, seconds: float) -> bool:
        """Return whether the server had closed the connection before the request arrived, as far as can be known.

        Then the connection was kept from an earlier request, not a byte of a response came, and it broke within
        `seconds` of the sending.
        """
        is_fresh = self.is_on_new_connection or self.has_response
        return not is_fresh and time.monotonic() - self.sent_at <= seconds


class CancellableBackend(NetworkBackend):
    """TCP connections whose reads can be cancelled. Connecting can't: it takes as long as its timeout allows."""

    def __init__(self) -> None:
        self._inner = SyncBackend()
        self._thread_state = threading.local()

    @contextmanager
    def cancel_reads_when(self, cancelled: Callable[[], bool], timeout: float) -> Iterator[Exchange]:
        """Limit each read of this thread to `timeout` seconds within the block, and until `cancelled` returns True.

        The read then raises httpcore.ReadTimeout or ReadCancelled; an exception of `cancelled` propagates.
        """
        self._thread_state.exchange = exchange = Exchange(cancelled, timeout)
        try:
            yield exchange
        finally:
            del self._thread_state.exchange

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> NetworkStream:
        """See httpcore."""
        self._exchange().is_on_new_connection = True
        options = socket_options or ()
        inner = self._inner.connect_tcp(host, port, timeout, local_address, options)
        return CancellableStream(inner, self._exchange)

    def _exchange(self) -> Exchange:
        """Return this thread's exchange."""
        exchange: Exchange = self._thread_state.exchange
        return exchange


class CancellableStream(NetworkStream):
    """A TCP or TLS connection. `exchange` returns the exchange of the calling thread."""

    def __init__(self, inner: NetworkStream, exchange: Callable[[], Exchange]) -> None:
        self._inner = inner
        self._exchange = exchange
        self._socket = inner.get_extra_info("socket")
        self._poller = select.poll()
        self._poller.register(self._socket, select.POLLIN)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Wait for data and return it."""
        data = self._read(max_bytes, timeout)
        self._exchange().has_response |= bool(data)
        return data

    def _read(self, max_bytes: int, timeout: float | None) -> bytes:
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return self._inner.read(max_bytes, timeout)
        while True:
            self._wait()
            # The data may be TLS's own, such as a session ticket, or half a record: then there is nothing to return.
            with suppress(ReadTimeout):
                return self._inner.read(max_bytes, POLL_INTERVAL)

    def _wait(self) -> None:
        exchange = self._exchange()
        deadline = time.monotonic() + exchange.timeout
        while True:
            if exchange.cancelled():
                raise ReadCancelled
            if self._poller.poll(POLL_INTERVAL * 1000):
                return
            if time.monotonic() > deadline:
                raise ReadTimeout(f"no data for {exchange.timeout:g} s")

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """See httpcore."""
        self._exchange().sent_at = time.monotonic()
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        """See httpcore."""
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> NetworkStream:
        """See httpcore."""
        return CancellableStream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._exchange)

    def get_extra_info(self, info: str) -> Any:
        """See httpcore, which uses it to check whether an idle connection is still open."""
        return self._inner.get_extra_info(info)


#: What httpcore raises when a connection fails or breaks.
CONNECTION_ERRORS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)

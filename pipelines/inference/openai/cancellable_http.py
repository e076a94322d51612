"""HTTP connections that a reader can be called away from while nothing comes.

httpx and http.client wait for the next byte until it comes or a timeout has broken the connection. A slot must be free
within milliseconds of a stop, so these ask while they wait, in the thread that reads: httpcore, the transport beneath
httpx, takes a network of one's own for that.
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

#: Seconds between two looks at `cancelled` while no byte comes.
POLL = 0.02


class ReadCancelled(Exception):
    """Whoever reads was told to stop."""


class CancellableBackend(NetworkBackend):
    """TCP whose reads can be interrupted. Connecting can't: it takes as long as its timeout allows."""

    def __init__(self) -> None:
        self._inner = SyncBackend()
        self._reading = threading.local()

    @contextmanager
    def cancel_reads_when(self, cancelled: Callable[[], bool], patience: float) -> Iterator[None]:
        """This thread's reads in the block wait for at most `patience` seconds each, and until `cancelled` says True.

        Then they raise httpcore.ReadTimeout and Interrupted, and what `cancelled` raises.
        """
        self._reading.rules = cancelled, patience
        try:
            yield
        finally:
            del self._reading.rules

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> NetworkStream:
        """See httpcore."""
        options = socket_options or ()
        return CancellableStream(self._inner.connect_tcp(host, port, timeout, local_address, options), self._wait)

    def _wait(self, poller: "select.poll") -> None:
        cancelled, patience = self._reading.rules
        deadline = time.monotonic() + patience
        while True:
            if cancelled():
                raise ReadCancelled
            if poller.poll(POLL * 1000):
                return
            if time.monotonic() > deadline:
                raise ReadTimeout(f"nothing came for {patience:g} s")


class CancellableStream(NetworkStream):
    """A connection, encrypted or not."""

    def __init__(self, inner: NetworkStream, wait: Callable[["select.poll"], None]) -> None:
        self._inner = inner
        self._wait = wait
        self._socket = inner.get_extra_info("socket")
        self._poller = select.poll()
        self._poller.register(self._socket, select.POLLIN)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come, once something has."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return self._inner.read(max_bytes, timeout)
        while True:
            self._wait(self._poller)
            # What can be read may be TLS's own, such as a ticket, or half a record: then there is still nothing.
            with suppress(ReadTimeout):
                return self._inner.read(max_bytes, POLL)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """See httpcore."""
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        """See httpcore."""
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> NetworkStream:
        """See httpcore."""
        return CancellableStream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._wait)

    def get_extra_info(self, info: str) -> Any:
        """See httpcore, which asks by it whether an idle connection is still there."""
        return self._inner.get_extra_info(info)


#: What httpcore raises when a connection fails or breaks.
CONNECTION_ERRORS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)

"""Send requests to an endpoint and read the events of its answers.

Connections are kept open and shared by all threads of the process. The API key is in no error: it is replaced in what
the endpoint sends before anything reads that.
"""

import ssl
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import httpcore

from models.platform.tracing import trace_headers
from models.platform.upstreams import Upstream
from pipelines.inference.openai.cancellable_http import (
    CONNECTION_ERRORS,
    POLL_INTERVAL,
    CancellableBackend,
    ReadCancelled,
)
from pipelines.inference.openai.endpoint_errors import (
    EndpointError,
    FailureKind,
    error_for_status,
    parse_error,
    parse_retry_after,
)
from pipelines.inference.openai.http1_connection import Http1Pool

#: Seconds to connect and to send the request; between two chunks of an answer; and from its end marker to the end of
#: the HTTP message, which only matters for using the connection again. Until an answer begins: see `Upstream.timeout`.
CONNECT_TIMEOUT, CHUNK_TIMEOUT, END_TIMEOUT = 5.0, 30.0, 0.5

#: Seconds that an idle connection is kept open: less than servers do (uvicorn 5), so that they seldom close it first.
KEEPALIVE = 4.0

#: The most bytes of a chunk, of an answer that is not streamed, and of an error's text.
MAX_CHUNK, MAX_ANSWER, MAX_ERROR = 1 << 20, 8 << 20, 1 << 16

#: Seconds after sending a request within which a server that had closed the kept connection shows it: a round trip.
CLOSED_WITHIN = 1.0

#: What httpcore raises when the server has closed a kept connection, and when none could be opened.
CONNECTION_CLOSED = (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError)
NOT_CONNECTED = (httpcore.ConnectError, httpcore.ConnectTimeout)

#: The header of a request that an earlier attempt may have sent with the same `Idempotency-Key`.
REPEAT_HEADER = "X-Sangha-Repeat"


class EndpointClient:
    """The connections to one endpoint, and its slots: answers that are requested at the same time.

    host  its host and port
    """

    def __init__(self, upstream: Upstream, slots: int) -> None:
        self.host = urlsplit(upstream.url).netloc
        self._url = upstream.url.rstrip("/")
        self._api_key = (upstream.api_key or "").encode()
        self._first_chunk_timeout = float(upstream.timeout)
        self._free_slots = threading.Semaphore(slots)
        self._backend = CancellableBackend()
        self._pool = Http1Pool(
            # The system's certificates, or those that SSL_CERT_FILE names.
            ssl_context=ssl.create_default_context() if self._url.startswith("https:") else None,
            max_keepalive_connections=slots,
            keepalive_expiry=KEEPALIVE,
            network_backend=self._backend,
        )

    @contextmanager
    def slot(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Occupy one of the slots. Raises ReadCancelled."""
        while not self._free_slots.acquire(timeout=POLL_INTERVAL):
            if cancelled():
                raise ReadCancelled
        try:
            yield
        finally:
            self._free_slots.release()

    def post(self, path: str, body: bytes, idempotency_key: str, *, is_repeat: bool) -> httpcore.Request:
        """Return a request for an answer. `is_repeat`: an earlier attempt may have sent it."""
        timeouts = {"connect": CONNECT_TIMEOUT, "write": CONNECT_TIMEOUT, "read": CHUNK_TIMEOUT}
        headers = [
            ("Host", self.host),
            ("Content-Type", "application/json"),
            ("Accept", "text/event-stream"),
            ("Content-Length", str(len(body))),
            ("Idempotency-Key", idempotency_key),
            *([(REPEAT_HEADER, "1")] if is_repeat else []),
            *trace_headers().items(),
            *([("Authorization", f"Bearer {self._api_key.decode()}")] if self._api_key else []),
        ]
        return httpcore.Request(
            "POST", self._url + path, headers=headers, content=body, extensions={"timeout": timeouts}
        )

    def events(
        self, request: httpcore.Request, is_done: Callable[[], bool], cancelled: Callable[[], bool]
    ) -> Generator[bytes, None, None]:
        """Send a request and yield the data of each event of the answer, until the end of the HTTP message.

        `is_done` is whether the last event was the end marker. Raises ReadCancelled, EndpointError and
        EndpointRejection.
        """
        has_begun = False
        try:
            with closing(self._send(request, cancelled)) as response:
                self._check(response, cancelled)
                for event in self._events(response, is_done, cancelled):
                    has_begun = True
                    yield event
        except CONNECTION_ERRORS as error:
            if not is_done():
                raise self._failure(error, has_begun=has_begun) from error

    def mask(self, data: bytes) -> bytes:
        """Replace the API key."""
        return data.replace(self._api_key, b"***") if self._api_key and self._api_key in data else data

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _failure(self, error: Exception, *, has_begun: bool) -> EndpointError:
        kind: FailureKind = "dropped"
        if isinstance(error, httpcore.TimeoutException) and not has_begun:
            kind = "timeout"
        elif isinstance(error, NOT_CONNECTED):
            kind = "refused"
        reason = str(error) or type(error).__name__
        return EndpointError(
            f"The endpoint {self.host} does not respond or closed the connection: {reason}",
            kind,
            accepted=not isinstance(error, NOT_CONNECTED),
        )

    def _send(self, request: httpcore.Request, cancelled: Callable[[], bool]) -> httpcore.Response:
        """Send the request and return the response's head.

        It is sent again once, where the server closed the kept connection before it can have read the request. After
        any other error it may be at work on the request, and bill it.
        """
        with self._backend.cancel_reads_when(cancelled, self._first_chunk_timeout) as exchange:
            try:
                return self._pool.handle_request(request)
            except CONNECTION_CLOSED:
                if not exchange.was_unread(CLOSED_WITHIN):
                    raise
                return self._pool.handle_request(request)

    def _events(
        self, response: httpcore.Response, is_done: Callable[[], bool], cancelled: Callable[[], bool]
    ) -> Iterator[bytes]:
        if _is_json(response):  # the endpoint does not stream
            yield self.mask(self._read(response, cancelled, MAX_ANSWER, self._first_chunk_timeout))
            return
        incomplete, timeout = b"", self._first_chunk_timeout
        parts = response.iter_stream()
        while (part := self._next_part(parts, cancelled, END_TIMEOUT if is_done() else timeout)) is not None:
            *lines, incomplete = (incomplete + part).split(b"\n")
            yield from (self.mask(line[5:].strip()) for line in lines if line.startswith(b"data:"))
            if len(incomplete) > MAX_CHUNK:
                raise EndpointError(
                    f"The endpoint {self.host} sent a line of more than {MAX_CHUNK} bytes", "invalid_response"
                )
            timeout = CHUNK_TIMEOUT

    def _next_part(self, parts: Iterator[bytes], cancelled: Callable[[], bool], timeout: float) -> bytes | None:
        with self._backend.cancel_reads_when(cancelled, timeout):
            return next(parts, None)

    def _check(self, response: httpcore.Response, cancelled: Callable[[], bool]) -> None:
        """Raise what a status other than 200 means."""
        if response.status == 200:
            return
        # Masked before the text is cut, which could leave a part of the key.
        message, codes = parse_error(self.mask(self._read(response, cancelled, MAX_ERROR, CHUNK_TIMEOUT)))
        message = self.mask(message.encode()).decode()  # it may be escaped in the JSON
        raise error_for_status(response.status, message, codes, parse_retry_after(response.headers))

    def _read(self, response: httpcore.Response, cancelled: Callable[[], bool], limit: int, timeout: float) -> bytes:
        """Read a whole body, and no more once `limit` bytes have been read."""
        text, parts = b"", response.iter_stream()
        while len(text) < limit and (part := self._next_part(parts, cancelled, timeout)) is not None:
            text += part
        return text


def _is_json(response: httpcore.Response) -> bool:
    """Return whether a response is one JSON document."""
    types = [value for name, value in response.headers if name.lower() == b"content-type"]
    return any(value.strip().lower().startswith(b"application/json") for value in types)

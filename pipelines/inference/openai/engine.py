"""Generate text with an OpenAI-compatible endpoint.

Connections are kept open and shared by all turns of the process. An answer can't be continued: endpoints read an
assistant message as a complete one. A turn whose worker crashes begins its answer again, and its stream reports that.
"""

import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import httpcore
import orjson

from models.platform.settings import Settings
from pipelines.inference.engine import (
    PLAIN_TEXT,
    EngineError,
    EngineOutput,
    Finish,
    Message,
    OutputFormat,
    Sampling,
    ToolCall,
)
from pipelines.inference.openai.cancellable_http import (
    CONNECTION_ERRORS,
    POLL_INTERVAL,
    CancellableBackend,
    ReadCancelled,
)
from pipelines.inference.openai.completion_reader import CompletionReader
from pipelines.inference.openai.completions import cache_isolation, request_body
from pipelines.inference.openai.endpoint_errors import error_for_status, message_of
from pipelines.inference.openai.http1_connection import Http1Pool
from pipelines.inference.registry import context_size

#: Seconds to connect and to send the request; until the answer begins; between two of its chunks; and from its end
#: marker to the end of the HTTP message, which only matters for using the connection again.
CONNECT_TIMEOUT, FIRST_CHUNK_TIMEOUT, CHUNK_TIMEOUT, END_TIMEOUT = 5.0, 60.0, 30.0, 0.5

#: Seconds that an idle connection is kept open: less than servers do (uvicorn 5), so that they seldom close it first.
KEEPALIVE = 4.0

#: The most bytes of a chunk, of an answer that is not streamed, and of an error's text.
MAX_CHUNK, MAX_ANSWER, MAX_ERROR = 1 << 20, 8 << 20, 1 << 16

#: Seconds after sending a request within which a server that had closed the kept connection shows it: a round trip.
CLOSED_WITHIN = 1.0

#: What httpcore raises when the server has closed a kept connection.
CONNECTION_CLOSED = (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError)


class OpenAIEngine:
    """Generates text with the first upstream's first model. See Engine."""

    reasons = True
    continues = False
    counts_exactly = False

    def __init__(self, settings: Settings) -> None:
        upstream = settings.upstreams[0]
        self.name, self.endpoint = upstream.models[0], upstream.name
        self.slots = settings.slots
        self.context = context_size(settings)
        self._isolated = settings.prompt_cache == "account"
        self._url = upstream.url.rstrip("/") + "/chat/completions"
        self._host = urlsplit(self._url).netloc
        self._api_key = upstream.api_key or ""
        self._headers = [("Host", self._host), ("Content-Type", "application/json"), ("Accept", "text/event-stream")]
        if self._api_key:
            self._headers.append(("Authorization", f"Bearer {self._api_key}"))
        self._free_slots = threading.Semaphore(settings.slots)
        self._backend = CancellableBackend()
        self._pool = Http1Pool(
            # The system's certificates, or those that SSL_CERT_FILE names.
            ssl_context=ssl.create_default_context() if self._url.startswith("https:") else None,
            max_keepalive_connections=settings.slots,
            keepalive_expiry=KEEPALIVE,
            network_backend=self._backend,
        )

    def count(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """Estimate the tokens, for endpoints don't count them: four ASCII characters, or one other, are a token."""
        texts = [text for message in prompt for text in (message.content, *(call.arguments for call in message.calls))]
        texts += [orjson.dumps([tool.description, tool.parameters]).decode() for tool in output_format.callable_tools]
        frames = 4 * (len(prompt) + len(output_format.callable_tools))  # roles and names
        return frames + sum(_tokens(text) for text in texts)

    def min_tokens(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """See Engine. The vocabulary of an endpoint is not known, and `count` is quick."""
        return 0

    def generate(
        self,
        prompt: Sequence[Message],
        *,
        prefix: str,
        sampling: Sampling,
        cancelled: Callable[[], bool],
        output_format: OutputFormat = PLAIN_TEXT,
        reasoning: str = "",
        calls: Sequence[ToolCall] = (),
        cache_owner: str | None = None,
    ) -> Iterator[EngineOutput]:
        """See Engine. Cancelling closes the connection, which makes endpoints stop generating."""
        tokens = self.count(prompt, output_format)
        if sampling.max_output_tokens < 1:
            yield Finish("length", tokens, 0, 0)
            return
        reader = CompletionReader(output_format)
        body = request_body(self.name, prompt, sampling, output_format, self._host)
        if self._isolated:
            body |= cache_isolation(self._host, cache_owner)
        request = self._http_request(orjson.dumps(body))
        try:
            with self._slot(cancelled), closing(self._chunks(request, reader, cancelled)) as chunks:
                for chunk in chunks:
                    yield from reader.add(chunk)
        except ReadCancelled:
            yield reader.cancelled_finish(tokens)
            return
        yield from reader.finish(tokens)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    @contextmanager
    def _slot(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Occupy one of the slots. Raises ReadCancelled."""
        while not self._free_slots.acquire(timeout=POLL_INTERVAL):
            if cancelled():
                raise ReadCancelled
        try:
            yield
        finally:
            self._free_slots.release()

    def _http_request(self, body: bytes) -> httpcore.Request:
        timeouts = {"connect": CONNECT_TIMEOUT, "write": CONNECT_TIMEOUT, "read": CHUNK_TIMEOUT}
        # The same when it is sent again: an endpoint that knows the header works once.
        headers = [*self._headers, ("Content-Length", str(len(body))), ("Idempotency-Key", str(uuid4()))]
        return httpcore.Request("POST", self._url, headers=headers, content=body, extensions={"timeout": timeouts})

    def _chunks(
        self, request: httpcore.Request, reader: CompletionReader, cancelled: Callable[[], bool]
    ) -> Generator[bytes, None, None]:
        """Yield the data of each event of the answer. Raises ReadCancelled, EngineError and PermanentFailure."""
        try:
            with closing(self._send(request, cancelled)) as response:
                self._check(response, cancelled)
                yield from self._events(response, reader, cancelled)
        except CONNECTION_ERRORS as error:
            if not reader.done:
                reason = str(error) or type(error).__name__
                raise EngineError(
                    f"The endpoint {self._host} does not respond or closed the connection: {reason}"
                ) from error

    def _send(self, request: httpcore.Request, cancelled: Callable[[], bool]) -> httpcore.Response:
        """Send the request and return the response's head.

        It is sent again once, where the server closed the kept connection before it can have read the request. After
        any other error it may be at work on the request, and bill it.
        """
        with self._backend.cancel_reads_when(cancelled, FIRST_CHUNK_TIMEOUT) as exchange:
            try:
                return self._pool.handle_request(request)
            except CONNECTION_CLOSED:
                if not exchange.was_unread(CLOSED_WITHIN):
                    raise
                return self._pool.handle_request(request)

    def _events(
        self, response: httpcore.Response, reader: CompletionReader, cancelled: Callable[[], bool]
    ) -> Iterator[bytes]:
        if _is_json(response):  # the endpoint does not stream
            yield self._read(response, cancelled, MAX_ANSWER, FIRST_CHUNK_TIMEOUT)
            return
        incomplete, timeout = b"", FIRST_CHUNK_TIMEOUT
        parts = response.iter_stream()
        while (part := self._next_part(parts, cancelled, END_TIMEOUT if reader.done else timeout)) is not None:
            *lines, incomplete = (incomplete + part).split(b"\n")
            yield from (line[5:].strip() for line in lines if line.startswith(b"data:"))
            if len(incomplete) > MAX_CHUNK:
                raise EngineError(f"The endpoint {self._host} sent a line of more than {MAX_CHUNK} bytes")
            timeout = CHUNK_TIMEOUT

    def _next_part(self, parts: Iterator[bytes], cancelled: Callable[[], bool], timeout: float) -> bytes | None:
        with self._backend.cancel_reads_when(cancelled, timeout):
            return next(parts, None)

    def _check(self, response: httpcore.Response, cancelled: Callable[[], bool]) -> None:
        """Raise what a status other than 200 means."""
        if response.status == 200:
            return
        text = self._read(response, cancelled, MAX_ERROR, CHUNK_TIMEOUT)
        # Masked before the text is cut, which could leave a part of the key.
        masked = text.replace(self._api_key.encode(), b"***") if self._api_key else text
        raise error_for_status(response.status, message_of(masked))

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


def probe(settings: Settings, timeout: float = 10.0) -> str:
    """Generate one token and report how long that took. Raises EngineError and PermanentFailure."""
    start = time.monotonic()
    engine = OpenAIEngine(settings)
    prompt, sampling = [Message("user", "Hello.")], Sampling(1)
    with closing(engine):
        outputs = engine.generate(
            prompt, prefix="", sampling=sampling, cancelled=lambda: time.monotonic() - start > timeout
        )
        *_, finish = outputs
    seconds = time.monotonic() - start
    if isinstance(finish, Finish) and finish.reason == "cancelled":
        raise EngineError(f"{settings.upstreams[0].url} did not generate a token of {engine.name} within {timeout:g} s")
    return f"{engine.name} at {settings.upstreams[0].url} responds in {seconds:.1f} s"


def _tokens(text: str) -> int:
    if text.isascii():
        return -(-len(text) // 4)
    ascii_ = sum(character.isascii() for character in text)
    return -(-ascii_ // 4) + len(text) - ascii_

"""Any OpenAI-compatible endpoint as an engine: a hosted API, vLLM, a llama-server elsewhere.

Connections are kept and shared by all turns of the process. An answer can't be gone on with: an endpoint takes an
assistant's message for a whole one. A turn whose worker dies begins its answer again, and its stream says so.
"""

import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import httpcore
import orjson

from models.platform.errors import PermanentFailure, SanghaError
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
from pipelines.inference.openai.cancellable_http import CONNECTION_ERRORS, POLL, CancellableBackend, ReadCancelled
from pipelines.inference.openai.completions import CompletionReader, max_tokens_field, request_body

#: Seconds to connect and to send the request in; until the answer begins; between two of its chunks; and from
#: its last to the end of the HTTP message, which only says that the connection can be used again.
CONNECT_TIMEOUT, FIRST_CHUNK_TIMEOUT, CHUNK_TIMEOUT, END_TIMEOUT = 5.0, 60.0, 30.0, 0.5

#: Seconds that an idle connection is kept: less than servers do (uvicorn 5), so that none is closed as it is taken.
KEEPALIVE = 4.0

#: Bytes of a chunk, and of an error's text, that are read at most.
MAX_CHUNK, MAX_ERROR = 1 << 20, 1 << 16

#: What it looks like when a server has closed a kept connection.
CONNECTION_CLOSED = (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError)

#: Statuses that another attempt may see the end of, beside all from 500.
RETRYABLE_STATUSES = frozenset({408, 409, 425, 429})

#: Statuses that say what is wrong with what was asked, and not with how we ask.
INVALID_REQUEST_STATUSES = frozenset({400, 413, 422})


class OpenAIEngine:
    """The engine of `SANGHA_ENGINE=openai`."""

    continues = False

    def __init__(self, settings: Settings) -> None:
        upstream = settings.upstreams[0]
        self.name = upstream.models[0]
        self.slots = settings.slots
        self.context = settings.context
        self._url = upstream.url.rstrip("/") + "/chat/completions"
        self._host = urlsplit(self._url).netloc
        self._key = upstream.api_key or ""
        self._headers = [("Host", self._host), ("Content-Type", "application/json"), ("Accept", "text/event-stream")]
        if self._key:
            self._headers.append(("Authorization", f"Bearer {self._key}"))
        self._free = threading.Semaphore(settings.slots)
        self._network = CancellableBackend()
        self._pool = httpcore.ConnectionPool(
            # The system's certificates, or those that SSL_CERT_FILE names.
            ssl_context=ssl.create_default_context() if self._url.startswith("https:") else None,
            max_keepalive_connections=settings.slots,
            keepalive_expiry=KEEPALIVE,
            network_backend=self._network,
        )

    def count(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """Estimated, since endpoints don't count: four letters of ASCII, or one other character, for a token."""
        texts = [text for message in prompt for text in (message.content, *(call.arguments for call in message.calls))]
        texts += [orjson.dumps([tool.description, tool.parameters]).decode() for tool in output_format.callable_tools]
        frames = 4 * (len(prompt) + len(output_format.callable_tools))  # roles and names
        return frames + sum(_tokens(text) for text in texts)

    def generate(
        self,
        prompt: Sequence[Message],
        *,
        prefix: str,
        sampling: Sampling,
        cancelled: Callable[[], bool],
        output_format: OutputFormat = PLAIN_TEXT,
        calls: Sequence[ToolCall] = (),
    ) -> Iterator[EngineOutput]:
        """See Engine. A stop closes the connection, which is what endpoints stop at."""
        tokens = self.count(prompt, output_format)
        if sampling.max_output_tokens < 1:
            yield Finish("length", tokens, 0, 0)
            return
        heard = CompletionReader(output_format)
        asked = request_body(self.name, prompt, sampling, output_format, max_tokens_field(self._host))
        request = self._request(orjson.dumps(asked))
        try:
            with self._slot(cancelled), closing(self._chunks(request, heard, cancelled)) as chunks:
                for chunk in chunks:
                    if token := heard.add(chunk):
                        yield token
        except ReadCancelled:
            yield heard.cancelled_finish(tokens)
            return
        yield from heard.finish(tokens)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    @contextmanager
    def _slot(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        """One of the generations that run at once. Raises Interrupted."""
        while not self._free.acquire(timeout=POLL):
            if cancelled():
                raise ReadCancelled
        try:
            yield
        finally:
            self._free.release()

    def _request(self, body: bytes) -> httpcore.Request:
        timeouts = {"connect": CONNECT_TIMEOUT, "write": CONNECT_TIMEOUT, "read": CHUNK_TIMEOUT}
        headers = [*self._headers, ("Content-Length", str(len(body)))]
        return httpcore.Request("POST", self._url, headers=headers, content=body, extensions={"timeout": timeouts})

    def _chunks(
        self, request: httpcore.Request, heard: CompletionReader, cancelled: Callable[[], bool]
    ) -> Generator[bytes, None, None]:
        """The data of each event of the answer. Raises Interrupted, EngineError and PermanentFailure."""
        try:
            with closing(self._begin(request, cancelled)) as response:
                self._check(response, cancelled)
                yield from self._events(response, heard, cancelled)
        except CONNECTION_ERRORS as error:
            if not heard.done:
                why = str(error) or type(error).__name__
                raise EngineError(f"the endpoint {self._host} broke off or does not answer: {why}") from error

    def _begin(self, request: httpcore.Request, cancelled: Callable[[], bool]) -> httpcore.Response:
        """The answer's head. Where a kept connection was closed as it was taken nothing was answered: ask again."""
        with self._network.cancel_reads_when(cancelled, FIRST_CHUNK_TIMEOUT):
            try:
                return self._pool.handle_request(request)
            except CONNECTION_CLOSED:
                return self._pool.handle_request(request)

    def _events(
        self, response: httpcore.Response, heard: CompletionReader, cancelled: Callable[[], bool]
    ) -> Iterator[bytes]:
        begun, patience = b"", FIRST_CHUNK_TIMEOUT
        parts = response.iter_stream()
        while (part := self._next(parts, cancelled, END_TIMEOUT if heard.done else patience)) is not None:
            *lines, begun = (begun + part).split(b"\n")
            yield from (line[5:].strip() for line in lines if line.startswith(b"data:"))
            if len(begun) > MAX_CHUNK:
                raise EngineError(f"the endpoint {self._host} sent a line of more than {MAX_CHUNK} bytes")
            patience = CHUNK_TIMEOUT

    def _next(self, parts: Iterator[bytes], cancelled: Callable[[], bool], patience: float) -> bytes | None:
        with self._network.cancel_reads_when(cancelled, patience):
            return next(parts, None)

    def _check(self, response: httpcore.Response, cancelled: Callable[[], bool]) -> None:
        """Raise what a status other than 200 means."""
        if response.status == 200:
            return
        text, parts = b"", response.iter_stream()
        while len(text) < MAX_ERROR and (part := self._next(parts, cancelled, CHUNK_TIMEOUT)) is not None:
            text += part
        # Before anything is cut off, or half of the key might be left.
        masked = text.replace(self._key.encode(), b"***") if self._key else text
        raise error_for_status(response.status, _message_of(masked))


def probe(settings: Settings, patience: float = 10.0) -> str:
    """Have the endpoint say a token, and tell how long that took. Raises EngineError and PermanentFailure."""
    began = time.monotonic()
    engine = OpenAIEngine(settings)
    question, sampling = [Message("user", "Hello.")], Sampling(1)
    with closing(engine):
        pieces = engine.generate(
            question, prefix="", sampling=sampling, cancelled=lambda: time.monotonic() - began > patience
        )
        *_, end = pieces
    seconds = time.monotonic() - began
    if isinstance(end, Finish) and end.reason == "cancelled":
        raise EngineError(f"{settings.upstreams[0].url} has not said a token of {engine.name} within {patience:g} s")
    return f"{engine.name} at {settings.upstreams[0].url} answers in {seconds:.1f} s"


def error_for_status(status: int, said: str) -> SanghaError:
    """An HTTP status and what the endpoint said as one of our errors.

    What is wrong with our key or our address is the operator's to know: callers are told no more than the status.
    """
    if status >= 500 or status in RETRYABLE_STATUSES:
        return EngineError(f"the endpoint answered with {status}: {said}")
    if status not in INVALID_REQUEST_STATUSES:
        return PermanentFailure(f"the model's endpoint refuses our requests ({status})")
    if "context" in said and ("length" in said or "size" in said):
        return PermanentFailure(said, code="context_length_exceeded")
    return PermanentFailure(said or f"the endpoint answered with {status}", code="invalid_request")


def _message_of(text: bytes) -> str:
    """What an error says, in the forms that are common; at most 300 characters."""
    try:
        parsed = orjson.loads(text)
        error = parsed.get("error") or parsed.get("detail") or parsed.get("message") or parsed
        return str(error.get("message") or error if isinstance(error, dict) else error)[:300]
    except (orjson.JSONDecodeError, AttributeError):
        return text[:300].decode(errors="replace")


def _tokens(text: str) -> int:
    if text.isascii():
        return -(-len(text) // 4)
    ascii_ = sum(character.isascii() for character in text)
    return -(-ascii_ // 4) + len(text) - ascii_

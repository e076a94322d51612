"""Pass the chunks of a generation from llama.cpp's thread to the thread that reads them, and parse them."""

import queue
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import orjson

from models.platform.errors import PermanentFailure, SanghaError
from pipelines.inference.engine import EngineError, Finish, PromptRead, ReasoningToken, Token, TokenLogprob

#: Seconds between two calls of `cancelled` while no chunk arrives.
POLL_INTERVAL = 0.02

#: Seconds over which tokens are collected after the first: waking a thread for each slows down the computing threads,
#: and nobody reads faster. A little shorter than the journal's own interval, so that its tokens are there in time.
BATCH_INTERVAL = 0.035

#: OpenAI's log probability of a token that is hardly possible; llama.cpp returns the smallest float.
LEAST_LOGPROB = -9999.0


class ChunkQueue:
    """The chunks of one generation: JSON as bytes, then None, or the exception that ended it.

    has_begun  whether llama.cpp has begun to read the prompt
    """

    def __init__(self) -> None:
        self.stop_requested = self.has_begun = False
        self.queue: queue.SimpleQueue[bytes | Exception | None] = queue.SimpleQueue()

    def on_chunk(self, chunk: bytes) -> bool:
        """Receive a chunk from llama.cpp; True stops the generation. Must not raise: llama.cpp ignores exceptions."""
        self.queue.put(chunk)
        self.has_begun = self.has_begun or b'"choices"' in chunk  # an error has none
        return self.stop_requested


class TokenBuffer:
    """Collects the reasoning and the text of chunks until they are taken as tokens."""

    def __init__(self, prompt_tokens: int | None) -> None:
        self.reason: Literal["stop", "length", "cancelled"] = "cancelled"
        self.prompt_tokens = prompt_tokens
        self.cached = self.generated = self._taken_tokens = 0
        self._reasoning = self._uncounted_reasoning = self._text = self._uncounted = ""
        self._reasoned = 0
        self._prompt_read: PromptRead | None = None
        self._logprobs: list[TokenLogprob] = []

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Read a chunk."""
        if progress := chunk.get("prompt_progress"):
            self.prompt_tokens = progress["total"] if self.prompt_tokens is None else self.prompt_tokens
            self.cached = min(progress["cache"], self.prompt_tokens or 0)
            self._prompt_read = PromptRead(self.prompt_tokens or 0, self.cached)
            return
        choice = chunk["choices"][0]
        self._uncounted_reasoning += choice["delta"].get("reasoning_content") or ""
        self._uncounted += choice["delta"].get("content") or ""
        if choice["delta"].get("content"):
            self._logprobs += map(_logprob, (choice.get("logprobs") or {}).get("content") or ())
        # Of several chunks made from one token only the last has timings: earlier text is held back until then.
        if (self._uncounted or self._uncounted_reasoning) and (timings := chunk.get("timings")):
            self._count(timings["predicted_n"])
        if choice["finish_reason"]:
            self.reason = "length" if choice["finish_reason"] == "length" else "stop"

    def _count(self, generated: int) -> None:
        if self._uncounted_reasoning:
            self._reasoned = generated
        self._reasoning, self._uncounted_reasoning = self._reasoning + self._uncounted_reasoning, ""
        self._text, self._uncounted = self._text + self._uncounted, ""
        self.generated = generated

    def take(self) -> Iterator[PromptRead | ReasoningToken | Token]:
        """Yield the reasoning that has not been taken yet as one token, and the text as another.

        Before the first of them yield that the prompt has been read: its progress is known after each batch.
        """
        if self._prompt_read and self.generated:
            yield self._prompt_read
            self._prompt_read = None
        if self._reasoning:
            yield ReasoningToken(self._reasoning, self._reasoned - self._taken_tokens)
            self._reasoning, self._taken_tokens = "", self._reasoned
        if self._text:
            token = Token(self._text, self.generated - self._taken_tokens, tuple(self._logprobs))
            self._text, self._taken_tokens, self._logprobs = "", self.generated, []
            yield token

    def finish(self) -> Finish:
        """Return the end of the generation, for any reason."""
        return Finish(self.reason, self.prompt_tokens or 0, self.cached, self.generated)


def read_tokens(
    chunks: ChunkQueue, cancelled: Callable[[], bool], prompt_tokens: int | None
) -> Iterator[PromptRead | ReasoningToken | Token | Finish]:
    """Yield tokens, then a Finish. `prompt_tokens` is None without a prefix, where llama.cpp's own count is right.

    The first token is yielded at once, later ones as they are collected. Raises what `error_from` returns.
    """
    buffer = TokenBuffer(prompt_tokens)
    while not cancelled():
        if buffer.generated and chunks.queue.empty():
            yield from buffer.take()
            time.sleep(BATCH_INTERVAL)
        try:
            item = chunks.queue.get(timeout=POLL_INTERVAL)
        except queue.Empty:
            continue
        if item is None:
            break
        buffer.add(_parse(item))
    yield from buffer.take()
    yield buffer.finish()


def error_from(error: Mapping[str, Any]) -> SanghaError:
    """Convert llama.cpp's error object: an error of the request is permanent."""
    message = str(error.get("message", error))
    if error.get("type") == "exceed_context_size_error":
        return PermanentFailure(message, code="context_length_exceeded")
    if error.get("code") == 400:
        return PermanentFailure(message, code="invalid_request")
    return EngineError(message)


def _logprob(entry: Mapping[str, Any]) -> TokenLogprob:
    data, token = bytes(entry["bytes"]), entry["token"]
    top = tuple(map(_logprob, entry.get("top_logprobs") or ()))
    return TokenLogprob(token, max(entry["logprob"], LEAST_LOGPROB), None if data == token.encode() else data, top)


def _parse(item: bytes | Exception) -> dict[str, Any]:
    if isinstance(item, ValueError):  # C++'s invalid_argument: the request is wrong
        raise PermanentFailure(str(item), code="invalid_request") from item
    if isinstance(item, Exception):
        raise EngineError(str(item)) from item
    chunk: dict[str, Any] = orjson.loads(item)
    if "error" in chunk:
        raise error_from(chunk["error"])
    return chunk

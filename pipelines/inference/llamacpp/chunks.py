"""A llama.cpp generation on its way from the thread that runs it to the thread that reads it."""

import queue
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import orjson

from models.platform.errors import PermanentFailure, SanghaError
from pipelines.inference.engine import EngineError, Finish, Token

#: Seconds between two looks at `cancelled` while no token comes.
POLL = 0.02

#: Seconds in which tokens gather once an answer has begun: waking a thread for each costs the threads that compute,
#: and nobody reads faster. A little shorter than the journal's own interval, which so finds what it waits for.
GATHER = 0.035


class ChunkQueue:
    """One generation's chunks: JSON as bytes, then None at the end, or the exception that ended it."""

    def __init__(self) -> None:
        self.stop_requested = False
        self.queue: queue.SimpleQueue[bytes | Exception | None] = queue.SimpleQueue()

    def on_chunk(self, chunk: bytes) -> bool:
        """llama.cpp's callback; True stops the generation. It must not raise: llama.cpp would go on regardless."""
        self.queue.put(chunk)
        return self.stop_requested


class TokenBuffer:
    """An answer as far as it has been heard, and how much of it has been told."""

    def __init__(self, prompt_tokens: int | None) -> None:
        self.reason: Literal["stop", "length", "cancelled"] = "cancelled"
        self.prompt_tokens = prompt_tokens
        self.cached = self.generated = self._told = 0
        self._text = self._uncounted = ""

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Hear one chunk."""
        if progress := chunk.get("prompt_progress"):
            self.prompt_tokens = progress["total"] if self.prompt_tokens is None else self.prompt_tokens
            self.cached = min(progress["cache"], self.prompt_tokens or 0)
            return
        choice = chunk["choices"][0]
        self._uncounted += choice["delta"].get("content") or ""
        # Of several chunks made from one token only the last has its timings: the text before it waits.
        if self._uncounted and (timings := chunk.get("timings")):
            self._text, self._uncounted = self._text + self._uncounted, ""
            self.generated = timings["predicted_n"]
        if choice["finish_reason"]:
            self.reason = "length" if choice["finish_reason"] == "length" else "stop"

    def take(self) -> Iterator[Token]:
        """What has not been told yet, in one piece."""
        if self._text:
            token = Token(self._text, self.generated - self._told)
            self._text, self._told = "", self.generated
            yield token

    def finish(self) -> Finish:
        """The end, whatever its reason."""
        return Finish(self.reason, self.prompt_tokens or 0, self.cached, self.generated)


def read_tokens(
    chunks: ChunkQueue, cancelled: Callable[[], bool], prompt_tokens: int | None
) -> Iterator[Token | Finish]:
    """Tokens, then a Finish. `prompt_tokens` is None where the engine's own figure holds, so where there is no prefix.

    The first token comes at once, those after it as they gather. Raises what `failure` makes of an error.
    """
    heard = TokenBuffer(prompt_tokens)
    while not cancelled():
        if heard.generated and chunks.queue.empty():
            yield from heard.take()
            time.sleep(GATHER)
        try:
            item = chunks.queue.get(timeout=POLL)
        except queue.Empty:
            continue
        if item is None:
            break
        heard.add(_parsed(item))
    yield from heard.take()
    yield heard.finish()


def error_from(error: Mapping[str, Any]) -> SanghaError:
    """llama.cpp's error object as one of ours: a 4xx of the request's is permanent."""
    message = str(error.get("message", error))
    if error.get("type") == "exceed_context_size_error":
        return PermanentFailure(message, code="context_length_exceeded")
    if error.get("code") == 400:
        return PermanentFailure(message, code="invalid_request")
    return EngineError(message)


def _parsed(item: bytes | Exception) -> dict[str, Any]:
    if isinstance(item, ValueError):  # C++'s invalid_argument: the request is wrong
        raise PermanentFailure(str(item), code="invalid_request") from item
    if isinstance(item, Exception):
        raise EngineError(str(item)) from item
    chunk: dict[str, Any] = orjson.loads(item)
    if "error" in chunk:
        raise error_from(chunk["error"])
    return chunk

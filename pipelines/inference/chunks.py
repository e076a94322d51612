"""A llama.cpp generation on its way from the thread that runs it to the thread that reads it."""

import queue
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import orjson

from models.errors import PermanentFailure, SanghaError
from pipelines.inference.engine import EngineError, Finish, Token

#: Seconds between two looks at `cancelled` while no token comes.
POLL = 0.02


class Chunks:
    """One generation's chunks: JSON as bytes, then None at the end, or the exception that ended it."""

    def __init__(self) -> None:
        self.stopped = False
        self.queue: queue.SimpleQueue[bytes | Exception | None] = queue.SimpleQueue()

    def heard(self, chunk: bytes) -> bool:
        """llama.cpp's callback; True stops the generation. It must not raise: llama.cpp would go on regardless."""
        self.queue.put(chunk)
        return self.stopped


def read(chunks: Chunks, cancelled: Callable[[], bool], prompt_tokens: int | None) -> Iterator[Token | Finish]:
    """Tokens, then a Finish. `prompt_tokens` is None where the engine's own figure holds, so where there is no prefix.

    Raises what `failure` makes of an error.
    """
    reason: Literal["stop", "length", "cancelled"] = "cancelled"
    cached = generated = 0
    text = ""
    while not cancelled():
        try:
            item = chunks.queue.get(timeout=POLL)
        except queue.Empty:
            continue
        if item is None:
            break
        chunk = _parsed(item)
        if progress := chunk.get("prompt_progress"):
            prompt_tokens = progress["total"] if prompt_tokens is None else prompt_tokens
            cached = min(progress["cache"], prompt_tokens or 0)
            continue
        choice = chunk["choices"][0]
        text += choice["delta"].get("content") or ""
        # Of several chunks made from one token only the last has its timings: the text before it waits.
        if text and (timings := chunk.get("timings")):
            yield Token(text, timings["predicted_n"] - generated)
            text, generated = "", timings["predicted_n"]
        if choice["finish_reason"]:
            reason = "length" if choice["finish_reason"] == "length" else "stop"
    yield Finish(reason, prompt_tokens or 0, cached, generated)


def failure(error: Mapping[str, Any]) -> SanghaError:
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
        raise failure(chunk["error"])
    return chunk

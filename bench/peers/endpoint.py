"""An OpenAI-compatible endpoint that plays a script: the model of both platforms, in a process of its own.

It answers chat completions with `w0 w1 w2 … `, as the scripted engine does. The model's name is the script:
`tokens=20;rate=0` (without a comma, which separates models in a setting); a rate of 0 is as fast as possible. HTTP is
read and written by hand, since the platforms lack whatever CPU time this process uses: an answer without a rate is one
write, and is built once for each script.
"""

import asyncio
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import orjson
import uvloop

SCRIPT = re.compile(r"tokens=(\d+);rate=(\d+(?:\.\d+)?)")

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class ScriptedAnswer:
    """The bytes of an answer: one piece for each token, what comes before the first, and what after the last."""

    begin: bytes
    tokens: tuple[bytes, ...]
    end: bytes
    rate: float


def model_name(script: str) -> str:
    """Return the model that plays a script of the scripted engine."""
    return script.replace(",", ";")


@lru_cache(maxsize=64)
def answer_of(model: str) -> ScriptedAnswer:
    """Return the answer of a script. Raises ValueError."""
    match = SCRIPT.fullmatch(model)
    if match is None:
        raise ValueError("the model should be tokens=20;rate=0 or the like")
    count = int(match[1])
    usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
    end = [
        completion_chunk(model, {}, "stop"),
        completion_chunk(model, None, None, usage),
        event(b"[DONE]"),
        LAST_CHUNK,
    ]
    tokens = tuple(completion_chunk(model, {"content": f"w{number} "}) for number in range(count))
    begin = HEAD + completion_chunk(model, {"role": "assistant", "content": ""})
    return ScriptedAnswer(begin, tokens, b"".join(end), float(match[2]))


def completion_chunk(model: str, delta: object, reason: str | None = None, usage: object = None) -> bytes:
    """Return the bytes of a chat completion chunk."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}]
    body = {"id": "chatcmpl-script", "object": "chat.completion.chunk", "created": 1, "model": model,
            "choices": choices, "usage": usage}  # fmt: skip
    return event(orjson.dumps(body))


def event(data: bytes) -> bytes:
    """Return an event in an HTTP chunk of its own."""
    frame = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(frame), frame)


class EndpointConnection(asyncio.Protocol):
    """One client, one request after another."""

    def __init__(self) -> None:
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the answer."""
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer a request once it is complete."""
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = CONTENT_LENGTH.search(head)
        size = int(length[1]) if length else 0
        if len(rest) >= size:
            self._buffer = rest[size:]
            self._answer(rest[:size])

    def _answer(self, body: bytes) -> None:
        try:
            answer = answer_of(orjson.loads(body)["model"])
        except (ValueError, KeyError, TypeError) as error:
            content = orjson.dumps({"error": {"message": str(error), "type": "invalid_request_error"}})
            self._transport.write(BAD_REQUEST % (len(content), content))
            return
        if not answer.rate:
            self._transport.write(answer.begin + b"".join(answer.tokens) + answer.end)
            return
        self._transport.write(answer.begin)
        self._write_token(answer, 0, asyncio.get_running_loop().time())

    def _write_token(self, answer: ScriptedAnswer, number: int, began: float) -> None:
        """Write a token and schedule the next one; the first is due at once."""
        if number == len(answer.tokens):
            self._transport.write(answer.end)
            return
        self._transport.write(answer.tokens[number])
        due = began + (number + 1) / answer.rate
        self._timer = asyncio.get_running_loop().call_at(due, self._write_token, answer, number + 1, began)


async def serve(port: int, ready: Callable[[], None] = lambda: None) -> None:
    """Answer until the process ends."""
    server = await asyncio.get_running_loop().create_server(EndpointConnection, "127.0.0.1", port, backlog=1024)
    ready()
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))

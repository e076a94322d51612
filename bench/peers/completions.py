"""A streamed chat completion, as any OpenAI-compatible server gives it: when its first text came, and how it ended."""

import http.client
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import orjson

from bench.harness.client import READ_TIMEOUT, Address
from bench.harness.sse import chunks


@dataclass(frozen=True, slots=True)
class Completion:
    """A stream: seconds to its first text, None without any; its text; and whether it ended without an error."""

    first: float | None
    text: str
    completed: bool


def complete(address: Address, key: str, model: str, text: str) -> Completion:
    """Stream one completion to its end."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": text}]}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    began, first, received = time.monotonic(), None, b""
    with closing(http.client.HTTPConnection(*address, timeout=READ_TIMEOUT)) as connection:
        connection.request("POST", "/v1/chat/completions", orjson.dumps(body), headers)
        response = connection.getresponse()
        try:
            for data in chunks(response):
                received += data
                if first is None and b'"content":"w' in received:
                    first = time.monotonic() - began
        except (OSError, http.client.HTTPException):
            return Completion(first, content_of(received), completed=False)
    return Completion(first, content_of(received), b"data: [DONE]" in received and b'"error"' not in received)


def complete_many(address: Address, key: str, model: str, count: int) -> Sequence[Completion]:
    """Stream several completions at once."""
    with ThreadPoolExecutor(count) as threads:
        streams = [threads.submit(complete, address, key, model, f"hello {number}") for number in range(count)]
        return [stream.result() for stream in streams]


def content_of(received: bytes) -> str:
    """Return the text of a stream's events; those that are incomplete or errors have none."""
    lines = [line[6:] for line in received.split(b"\n") if line.startswith(b"data: {") and line.endswith(b"}")]
    choices = [choice for line in lines for choice in orjson.loads(line).get("choices") or ()]
    return "".join(choice["delta"].get("content") or "" for choice in choices)

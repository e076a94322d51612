"""HTTP/1.1 by hand, one request after another on a connection, for as little CPU time as possible."""

import asyncio
import re
from dataclasses import dataclass
from typing import cast

import orjson

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
IDEMPOTENCY_KEY = re.compile(rb"\r\nidempotency-key: *([^\r]*)", re.IGNORECASE)

PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error",
           503: "Service Unavailable"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request that was received completely."""

    method: str
    path: str
    key: str
    body: bytes


class HttpConnection(asyncio.Protocol):
    """One client, one request after another."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Handle a request once it is complete."""
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = CONTENT_LENGTH.search(head)
        size = int(length[1]) if length else 0
        if len(rest) >= size:
            self._buffer = rest[size:]
            method, path, _ = head.split(b" ", 2)
            key = IDEMPOTENCY_KEY.search(head)
            self.handle(HttpRequest(method.decode(), path.decode(), key[1].decode() if key else "", rest[:size]))

    def handle(self, request: HttpRequest) -> None:
        """Respond to a request."""
        raise NotImplementedError

    def respond(self, status: int, body: object, headers: str = "") -> None:
        """Respond with JSON; `headers` are lines of the head."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        head = f"HTTP/1.1 {status} {PHRASES.get(status, 'Status')}\r\nContent-Type: application/json\r\n{headers}"
        self.transport.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)


def error_body(message: str, type_: str = "invalid_request_error") -> dict[str, object]:
    """Return the body of an error, as OpenAI's API has it."""
    return {"error": {"message": message, "type": type_, "param": None, "code": None}}

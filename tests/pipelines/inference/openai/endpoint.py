"""An OpenAI-compatible endpoint over real HTTP whose answers a test writes, chunk by chunk."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

DONE = b"data: [DONE]\n\n"


class Asked(BaseHTTPRequestHandler):
    """One request, and the ways to answer it."""

    protocol_version = "HTTP/1.1"
    server: "Endpoint"
    body: dict[str, Any]

    def do_POST(self) -> None:
        self.body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(self)
        self.server.plays.pop(0)(self)

    def begin(self) -> None:
        """Answer with a stream."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send(self, data: bytes) -> None:
        """Some bytes of it."""
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """The stream's end."""
        self.wfile.write(b"0\r\n\r\n")

    def refuse(self, status: int, body: bytes) -> None:
        """Answer with an error."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def gone(self, seconds: float = 5.0) -> bool:
        """Whether the client closes the connection, within a time."""
        self.connection.settimeout(seconds)
        try:
            return self.connection.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        finally:
            self.close_connection = True

    def cut(self) -> None:
        """Break the connection."""
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


Play = Callable[[Asked], None]


class Endpoint(ThreadingHTTPServer):
    """Plays one after another, a request each."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.plays: list[Play] = []
        self.asked: list[Asked] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left is what some tests want."""


@contextmanager
def serving() -> Iterator[Endpoint]:
    """An endpoint that listens until the end of the block."""
    endpoint = Endpoint()
    thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.shutdown()
        thread.join()
        endpoint.server_close()


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None, **beside: Any) -> bytes:
    """An event of the stream."""
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": reason}] if delta is not None or reason else []
    return b"data: " + orjson.dumps({"object": "chat.completion.chunk", "choices": choices, **beside}) + b"\n\n"


def says(*texts: str, reason: str = "stop", usage: dict[str, Any] | None = None) -> Play:
    """An answer of these chunks."""

    def play(asked: Asked) -> None:
        asked.begin()
        for text in texts:
            asked.send(chunk({"content": text}))
        asked.send(chunk({}, reason))
        if usage is not None:
            asked.send(chunk(usage=usage))
        asked.send(DONE)
        asked.end()

    return play


def refuses(status: int, message: str, **beside: Any) -> Play:
    """An error."""
    return lambda asked: asked.refuse(status, orjson.dumps({"error": {"message": message, **beside}}))

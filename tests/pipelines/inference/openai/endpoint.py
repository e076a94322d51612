"""An OpenAI-compatible endpoint over real HTTP whose responses a test writes, chunk by chunk."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

DONE = b"data: [DONE]\n\n"


class ReceivedRequest(BaseHTTPRequestHandler):
    """A request, and the ways to respond to it."""

    protocol_version = "HTTP/1.1"
    server: "Endpoint"
    body: dict[str, Any]

    def do_POST(self) -> None:
        self.body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(self)
        self.server.handlers.pop(0)(self)

    def begin_stream(self) -> None:
        """Begin a stream."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send(self, data: bytes) -> None:
        """Send bytes of the stream."""
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        """End the stream."""
        self.wfile.write(b"0\r\n\r\n")

    def respond_with_error(self, status: int, body: bytes) -> None:
        """Respond with an error."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def disconnects(self, seconds: float = 5.0) -> bool:
        """Return whether the client closes the connection within this time."""
        self.connection.settimeout(seconds)
        try:
            return self.connection.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        finally:
            self.close_connection = True

    def break_connection(self) -> None:
        """Break the connection."""
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


Handler = Callable[[ReceivedRequest], None]


class Endpoint(ThreadingHTTPServer):
    """Responds to each request with the next handler."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ReceivedRequest)
        self.handlers: list[Handler] = []
        self.requests: list[ReceivedRequest] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect: some tests want that."""


@contextmanager
def running_endpoint() -> Iterator[Endpoint]:
    """Run an endpoint until the end of the block."""
    endpoint = Endpoint()
    thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.shutdown()
        thread.join()
        endpoint.server_close()


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None, **fields: Any) -> bytes:
    """Return an event of the stream."""
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": reason}] if delta is not None or reason else []
    return b"data: " + orjson.dumps({"object": "chat.completion.chunk", "choices": choices, **fields}) + b"\n\n"


def answers_with(*texts: str, reason: str = "stop", usage: dict[str, Any] | None = None) -> Handler:
    """Return a complete answer of these chunks."""

    def handle(request: ReceivedRequest) -> None:
        request.begin_stream()
        for text in texts:
            request.send(chunk({"content": text}))
        request.send(chunk({}, reason))
        if usage is not None:
            request.send(chunk(usage=usage))
        request.send(DONE)
        request.end_stream()

    return handle


def fails_with(status: int, message: str, **fields: Any) -> Handler:
    """Return an error response."""
    return lambda request: request.respond_with_error(status, orjson.dumps({"error": {"message": message, **fields}}))


def calls_with(*parts: tuple[int, str, str], reason: str = "tool_calls") -> Callable[[ReceivedRequest], None]:
    def handle(request: ReceivedRequest) -> None:
        request.begin_stream()
        for index, name, arguments in parts:
            function = {"arguments": arguments} | ({"name": name} if name else {})
            request.send(chunk({"tool_calls": [{"index": index, "function": function}]}))
        request.send(chunk({}, reason))
        request.send(chunk(usage={"prompt_tokens": 5, "completion_tokens": 12}))
        request.send(DONE)
        request.end_stream()

    return handle


def ends_stream_after(*chunks: bytes) -> Callable[[ReceivedRequest], None]:
    def handle(request: ReceivedRequest) -> None:
        request.begin_stream()
        for data in chunks:
            request.send(data)
        request.end_stream()

    return handle

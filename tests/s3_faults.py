"""A proxy in front of an S3 service that answers with errors, slowly, altered, or cuts connections."""

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the service."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def error(status: int, code: str = "") -> Answer:
    """Return an answer with an error as S3 has it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>secret-internals</Message></Error>" if code else ""
    return Answer(status, [], body.encode())


@dataclass(eq=False)
class FaultProxy:
    """What the proxy does with requests. `requests` lists their methods and paths.

    before  returns an answer instead of the service's, by method, or None
    after   changes the service's answer
    cut     bytes of a body after which the connection is reset
    hold    while it is not set, no request is answered
    """

    url: str = ""
    before: Callable[[str], Answer | None] = lambda method: None
    after: Callable[[Answer], Answer] = lambda answer: answer
    cut: int | None = None
    hold: threading.Event = field(default_factory=threading.Event)
    requests: list[str] = field(default_factory=list)

    def heal(self) -> None:
        """Forward normally."""
        self.before, self.after, self.cut = lambda method: None, lambda answer: answer, None
        self.hold.set()
        self.requests.clear()


@contextmanager
def fault_proxy(target: str) -> Iterator[FaultProxy]:
    """Run a proxy in front of a service until the end of the block."""
    proxy = FaultProxy()
    proxy.hold.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            proxy.requests.append(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            proxy.hold.wait(60)
            answer = proxy.before(self.command) or proxy.after(self.forward(body))
            self.answer(answer)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        def forward(self, body: bytes) -> Answer:
            connection = http.client.HTTPConnection(urlsplit(target).netloc, timeout=60)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            headers = [(name, value) for name, value in response.getheaders() if name.lower() != "connection"]
            content = response.read()
            connection.close()
            return Answer(response.status, headers, content)

        def answer(self, answer: Answer) -> None:
            self.send_response_only(answer.status)
            named = {name.lower() for name, _ in answer.headers}
            for name, value in answer.headers:
                if name.lower() != "transfer-encoding":
                    self.send_header(name, value)
            if "content-length" not in named:
                self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            if proxy.cut is not None and len(answer.body) > proxy.cut:
                self.wfile.write(answer.body[: proxy.cut])
                self.wfile.flush()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(OSError):  # the client has gone
                super().handle()

        def finish(self) -> None:
            with suppress(OSError, ValueError):
                super().finish()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()

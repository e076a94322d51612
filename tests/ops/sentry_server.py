"""A server that receives error reports as Sentry does: envelopes of lines of JSON, compressed."""

import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class SentryServer(http.server.ThreadingHTTPServer):
    """Keeps what it receives. `raw` is everything, headers included, as text."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Envelopes)
        self.events: list[dict[str, Any]] = []
        self.other_items: list[str] = []
        self.raw = ""

    @property
    def dsn(self) -> str:
        """The value of SENTRY_DSN."""
        return f"http://a0b1c2@127.0.0.1:{self.server_port}/7"

    def receive(self, body: bytes, headers: str) -> None:
        """Keep the items of an envelope: a header, then for each item a header and a payload, one line each."""
        self.raw += headers + body.decode()
        _, *lines = body.decode().splitlines()
        for header, payload in zip(lines[::2], lines[1::2], strict=True):
            if json.loads(header)["type"] == "event":
                self.events.append(json.loads(payload))
            else:
                self.other_items.append(header)


class Envelopes(http.server.BaseHTTPRequestHandler):
    """`POST /api/PROJECT/envelope/`."""

    server: SentryServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/api/7/envelope/"
        assert "sentry_key=a0b1c2" in self.headers["x-sentry-auth"]
        self.server.receive(
            gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body, str(self.headers)
        )
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def sentry_server() -> Iterator[SentryServer]:
    """Run a server."""
    server = SentryServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""Serve a process's metrics and health over HTTP, from threads of its own: `/metrics`, `/healthz` and `/readyz`.

Workers and schedulers have no other HTTP server. Each process of `sangha up` also serves a Unix socket, from which the
web process reads the metrics of all.
"""

import hmac
import logging
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import orjson

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings, variable_name

log = logging.getLogger(__name__)

#: Requests at a time. More are closed: a scraper and a few probes need no more.
MAX_REQUESTS = 16

#: Seconds that a client may take for its request.
TIMEOUT = 10.0

#: Returns the metrics as text for an `Accept` header, and the text's content type.
Render = Callable[[str], tuple[bytes, str]]


class Health(Protocol):
    """What a process says about itself. Both return problems, none if there is none, and wait for no server."""

    def live(self) -> Sequence[str]:
        """Return why the process should be restarted."""

    def ready(self) -> Sequence[str]:
        """Return why the process does no work."""


class MonitoringServer:
    """The servers of one process: at `SANGHA_METRICS_ADDRESS`, and at a socket under `sangha up`."""

    def __init__(self, settings: Settings, render: Render, health: Health | None = None) -> None:
        self._settings = settings
        self._render = render
        self._health = health
        self._stack = ExitStack()

    def start(self) -> "MonitoringServer":
        """Start serving in daemon threads. Raises ConfigurationError with one line."""
        if self._settings.metrics_address is not None:
            self._serve(_listen(self._settings.metrics_address), self._settings.metrics_token)
            log.info("Serving metrics on %s", self._settings.metrics_address)
        if (self._settings.home / "run").is_dir() and self._settings.socket_dir.is_dir():  # of `sangha up`
            path = socket_path(self._settings, os.getpid())
            self._serve(_listen_on_socket(path), None)
            self._stack.callback(path.unlink, missing_ok=True)
        return self

    def stop(self) -> None:
        """Stop serving."""
        self._stack.close()

    def _serve(self, listener: socket.socket, token: str | None) -> None:
        server = _Server(listener, self._render, self._health, token)
        thread = threading.Thread(target=server.serve_forever, name="monitoring", daemon=True)
        thread.start()
        self._stack.callback(server.server_close)
        self._stack.callback(server.shutdown)


def socket_path(settings: Settings, pid: int) -> Path:
    """Return the path of a process's socket."""
    return settings.socket_dir / f"metrics.{pid}"


def admits(token: str | None, authorization: str) -> bool:
    """Return whether an `Authorization` header has the token that metrics need, or they need none."""
    return token is None or hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode())


def _listen(address: str) -> socket.socket:
    parts = urlsplit(f"//{address}")
    host, port = parts.hostname or "", parts.port or 0
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(f"{variable_name('metrics_address')} is {address}: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)


def _listen_on_socket(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # of an earlier process with this pid
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, render: Render, health: Health | None, token: str | None) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.render, self.health, self.token = render, health, token
        self._free = threading.Semaphore(MAX_REQUESTS)

    def process_request(self, request: object, client_address: object) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)  # type: ignore[arg-type]
        else:
            self.shutdown_request(request)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        log.debug("A request for metrics failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = TIMEOUT
    server_version, sys_version = "sangha", ""

    def do_GET(self) -> None:
        """Answer a request."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._send_metrics()
        elif path == "/healthz" and self.server.health:
            self._send_problems(self.server.health.live(), "ok", "not ok")
        elif path == "/readyz" and self.server.health:
            self._send_problems(self.server.health.ready(), "ready", "not ready")
        else:
            self._send(HTTPStatus.NOT_FOUND, b"", "text/plain")

    def _send_metrics(self) -> None:
        if admits(self.server.token, self.headers.get("authorization", "")):
            self._send(HTTPStatus.OK, *self.server.render(self.headers.get("accept", "")))
        else:
            self._send(HTTPStatus.UNAUTHORIZED, b"", "text/plain", ("www-authenticate", "Bearer"))

    def _send_problems(self, problems: Sequence[str], good: str, bad: str) -> None:
        body = orjson.dumps({"status": bad if problems else good, **({"problems": problems} if problems else {})})
        self._send(HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK, body, "application/json")

    def _send(self, status: HTTPStatus, body: bytes, content_type: str, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("content-type", content_type), ("content-length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing: a scrape comes every few seconds."""

"""A receiver of webhooks in the harness, which verifies what it gets. No fault affects it, so its book is the truth."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import orjson

#: Verifies as receivers do, by the official client.
CLIENT = openai.OpenAI(api_key="none")


@dataclass(frozen=True, slots=True)
class Received:
    """A webhook that has arrived.

    path      of the URL, without its slash
    at        Unix time of its arrival
    accepted  whether it was answered with 2xx
    """

    path: str
    event_id: str
    type: str
    data_id: str
    at: float
    valid: bool
    accepted: bool


@dataclass
class WebhookReceiver:
    """Answers with 204, unless `answer` says another status: of a path, how often an event has arrived, and its id.

    secrets  by path; without one the signature is not verified
    release  ends requests to the path `never`, which are not answered before
    """

    url: str = ""
    secrets: dict[str, str] = field(default_factory=dict)
    answer: Callable[[str, int, str], int] = lambda path, number, event_id: 204
    release: threading.Event = field(default_factory=threading.Event)
    _received: list[Received] = field(default_factory=list)
    _numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def received(self, path: str) -> Sequence[Received]:
        """Return what has arrived at a path so far."""
        with self._lock:
            return [each for each in self._received if each.path == path]

    def receive(self, path: str, headers: Mapping[str, str], body: bytes) -> int:
        """Note a webhook. Returns the status of the answer."""
        at = time.time()
        if path == "never":
            self.release.wait()
            return 503
        event, valid = orjson.loads(body), self._is_valid(path, headers, body)
        with self._lock:
            number = self._numbers[path, event["id"]] = self._numbers.get((path, event["id"]), 0) + 1
            status = self.answer(path, number, event["id"])
            subject = event["data"].get("id", "")
            self._received.append(Received(path, event["id"], event["type"], subject, at, valid, status < 300))
        return status

    def _is_valid(self, path: str, headers: Mapping[str, str], body: bytes) -> bool:
        secret = self.secrets.get(path)
        if secret is None:
            return True
        try:
            CLIENT.webhooks.verify_signature(body, headers, secret=secret)
        except openai.InvalidWebhookSignatureError:
            return False
        return True


@contextmanager
def webhook_receiver(*, host: str = "127.0.0.1") -> Iterator[WebhookReceiver]:
    """Run a receiver on an address of this host until the block ends."""
    receiver = WebhookReceiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = receiver.receive(self.path.strip("/"), headers, body)
            with suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            """Ignore connections that a killed worker has lost."""

    server = Server((host, 0), Handler)
    receiver.url = f"http://{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.release.set()
        server.shutdown()
        server.server_close()

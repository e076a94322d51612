"""A local server that answers as Stripe's API does: real HTTP, idempotency keys, and its faults.

`faults` are taken by the next calls that change something:

    unsent     the connection is closed before the call has had its effect
    lost       the connection is closed afterwards
    accepted   the call has its effect, and is answered with a 500, which Stripe saves as the answer to the key
    created    as `accepted`, but an intent was not confirmed yet
    held       the call waits until `release` is set, and others with its key are answered with 409 meanwhile
    429, …     an answer with this status, without any effect
"""

import json
import threading
from collections import deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.pipelines.billing.stripe_state import StripeError, StripeState

API_KEY, WEBHOOK_SECRET = "sk_test_local", "whsec_local_secret"
VERSION = "2026-10-28.endive"

#: Errors of calls that Stripe rejects before it executes them, whose answers it does not save.
NOT_EXECUTED = frozenset({"parameter_unknown", "url_unknown"})

Answer = tuple[int, Any, bool]


class Stripe(StripeState):
    """An account at Stripe, and the answers that were saved under idempotency keys."""

    def __init__(self) -> None:
        super().__init__(WEBHOOK_SECRET)
        self.answers: dict[str, tuple[object, int, Any]] = {}
        self.faults: deque[str | int] = deque()
        self.in_progress: set[str] = set()
        self.held, self.release = threading.Event(), threading.Event()
        self.lock = threading.RLock()

    def forget_keys(self) -> None:
        """Forget the idempotency keys, as Stripe does after a day."""
        self.answers.clear()

    def answer(self, method: str, path: str, parameters: dict[str, Any], key: str | None, fault: object) -> Answer:
        """Answer a call; one with a known idempotency key as before. The last value: whether it was answered before."""
        key = key if method == "POST" else None
        with self.lock:
            if key in self.answers:
                return self._saved(key, path, parameters)
            if key in self.in_progress:
                error = {"type": "idempotency_error", "code": "idempotency_key_in_use"}
                return 409, {"error": {**error, "message": "Another request with this key is in progress."}}, False
            self.in_progress |= {key} if key else set()
        if fault == "held":
            self.held.set()
            assert self.release.wait(10)
        with self.lock:
            self.in_progress.discard(key or "")
            return (*self._executed(method, path, parameters, key, fault), False)

    def _saved(self, key: str | None, path: str, parameters: dict[str, Any]) -> Answer:
        asked, status, body = self.answers[key or ""]
        if asked == (path, parameters):
            return status, body, True
        return 400, {"error": {"type": "idempotency_error", "message": "The key was used for another call."}}, False

    def _executed(
        self, method: str, path: str, parameters: dict[str, Any], key: str | None, fault: object
    ) -> tuple[int, Any]:
        try:
            if fault == "created":
                parameters_executed = {**parameters, "confirm": "false"}
                status, body = 200, self.perform(method, path, parameters_executed)
            else:
                status, body = 200, self.perform(method, path, parameters)
        except StripeError as error:
            status, body = error.status, {"error": error.error}
        if fault in ("accepted", "created"):
            status, body = 500, {"error": {"type": "api_error", "message": "Something went wrong."}}
        body = json.loads(json.dumps(body))
        if key and (status == 200 or body["error"].get("code") not in NOT_EXECUTED):
            self.answers[key] = ((path, parameters), status, body)
        return status, body


def parse_form(text: str) -> dict[str, Any]:
    """Parse a form with keys such as `metadata[payment]` into nested dictionaries."""
    parsed: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        keys, target = name.replace("]", "").split("["), parsed
        for each in keys[:-1]:
            target = target.setdefault(each, {})
        target[keys[-1]] = value
    return parsed


def _handler(state: Stripe) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer("GET", urlsplit(self.path).query)

        def do_DELETE(self) -> None:
            self._answer("DELETE", urlsplit(self.path).query)

        def do_POST(self) -> None:
            self._answer("POST", self.rfile.read(int(self.headers.get("content-length") or 0)).decode())

        def _answer(self, method: str, form: str) -> None:
            fault = state.faults.popleft() if state.faults and method != "GET" else None
            if fault == "unsent":
                self.close_connection = True
                return
            if isinstance(fault, int):
                kind = {429: "rate_limit_error", 409: "idempotency_error"}.get(fault, "api_error")
                self._send(fault, {"error": {"type": kind, "message": "Try again."}})
                return
            if self.headers["authorization"] != f"Bearer {API_KEY}" or self.headers["stripe-version"] != VERSION:
                self._send(401, {"error": {"type": "invalid_request_error", "message": "Invalid API key or version."}})
                return
            path, key = urlsplit(self.path).path, self.headers["idempotency-key"]
            status, body, replayed = state.answer(method, path, parse_form(form), key, fault)
            if fault == "lost":
                self.close_connection = True
                return
            self._send(status, body, replayed=replayed)

        def _send(self, status: int, body: Any, *, replayed: bool = False) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.send_header("request-id", "req_local")
            if replayed:
                self.send_header("idempotent-replayed", "true")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """Log nothing."""

    return Handler


@contextmanager
def run_stripe():
    """Run the server on a free port; yields its state and its URL."""
    state = Stripe()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

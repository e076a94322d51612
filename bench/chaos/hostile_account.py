"""A hostile account: sends requests as an attacker does, and judges their answers.

It comes from an IP address of its own where the system has several on loopback. Whatever it sends, it must be answered
clearly: with 2xx or 4xx, or with a 503 where a server is away or the machine is overloaded, which depends on its speed.
No answer may contain what belongs to its victim.
"""

import contextlib
import http.client
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from bench.chaos.victim import Victim
from bench.harness.client import Address

#: The address that requests come from, so that limits by address do not meet the fleet's.
SOURCE = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"

#: Seconds within which an answer must come when no fault is injected. Requests that need a worker are answered with a
#: 202, 408 or 503 after 30 to 60 seconds; a machine may be busy.
PATIENCE = 100.0

#: Problems that are recorded; more of them say no more.
MOST_PROBLEMS = 100

#: Errors of a connection that the platform may close: after a refused body, for example.
CLOSED = (OSError, http.client.HTTPException)

#: Requests that are sent at the same time.
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. The status is 0 when the connection was closed without one."""

    status: int
    body: bytes = b""

    def json(self) -> dict[str, Any]:
        """Return the body, parsed; empty unless it is an object."""
        with contextlib.suppress(orjson.JSONDecodeError):
            parsed = orjson.loads(self.body)
            return parsed if isinstance(parsed, dict) else {}
        return {}


class HostileAccount:
    """Sends requests from several threads, until `stop`.

    faults    whether faults are injected meanwhile, which excuse a 502, a 504 and a missing answer
    counts    answers by attack and status
    problems  what was answered wrongly: attack, request, problem
    """

    def __init__(
        self, addresses: Sequence[Address], token: str, victim: Victim, *, faults: bool, seed: int = 0
    ) -> None:
        self.addresses = addresses
        self.token = token
        self.victim = victim
        self.rng = Random(f"{seed} adversary")
        self.counts: Counter[tuple[str, int]] = Counter()
        self.problems: list[tuple[str, str, str]] = []
        self._faults = faults
        self._attack = threading.local()
        self._stopping = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()

    @contextmanager
    def attacking(self, name: str) -> Iterator[None]:
        """Count the requests of this thread as those of an attack."""
        self._attack.name = name
        yield

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer:
        """Send a request and read its answer. An iterable is sent as chunks. Disconnect after `timeout` seconds."""
        data = orjson.dumps(body) if isinstance(body, Mapping) else body
        began = time.monotonic()
        try:
            answer = self._exchange(method, path, data, self._headers(headers), timeout or PATIENCE)
        except TimeoutError:
            answer = Answer(0)
            if timeout is None and not self._faults and not self._stopping.is_set():
                self.report(f"{method} {path}", f"no answer after {time.monotonic() - began:.0f} s")
        except CLOSED:
            answer = Answer(0)
        self._judge(f"{method} {path}", answer)
        return answer

    def refuse(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> None:
        """Send a request that must be refused."""
        answer = self.send(method, path, body)
        if 200 <= answer.status < 300:
            self.report(f"{method} {path}", f"accepted with {answer.status}: {excerpt(answer.body)}")

    def report(self, request: str, problem: str) -> None:
        """Record a wrong answer."""
        with self._lock:
            if len(self.problems) < MOST_PROBLEMS:
                self.problems.append((self._attack.name, request, problem))

    def at_once(self, requests: int, send: Callable[[int], object]) -> None:
        """Call a function with the numbers of that many requests, on several threads."""
        name = self._attack.name

        def numbered(number: int) -> None:
            if not self._stopping.is_set():
                with self.attacking(name):
                    send(number)

        with ThreadPoolExecutor(min(requests, AT_ONCE)) as threads:
            list(threads.map(numbered, range(requests)))

    @contextmanager
    def open_sockets(self, count: int, data: bytes, receive_buffer: int | None = None) -> Iterator[None]:
        """Open connections that send some bytes and read nothing, until the end of the block."""
        with ExitStack() as opened:
            with contextlib.suppress(OSError):
                for _ in range(count):
                    self._open_socket(opened.enter_context(socket.socket()), data, receive_buffer)
            yield

    def wait(self, seconds: float) -> None:
        """Wait, at most until `stop`."""
        self._stopping.wait(seconds)

    def stop(self) -> None:
        """Interrupt all requests, and send no more."""
        self._stopping.set()
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def head(self, method: str, path: str, headers: str = "") -> bytes:
        """Return the head of a request, without the empty line that ends it."""
        return (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}\r\n{headers}".encode()
        )

    def _headers(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        return {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}", **(headers or {})}

    def _exchange(self, method: str, path: str, body: Any, headers: Mapping[str, str], timeout: float) -> Answer:
        address = self.rng.choice(self.addresses)
        connection = http.client.HTTPConnection(*address, timeout=timeout, source_address=(SOURCE, 0))
        try:
            connection.connect()
            self._register(connection.sock)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before the whole body was sent
                connection.request(method, path, body, headers)
            response = http.client.HTTPResponse(connection.sock, method=method)
            response.begin()
            return Answer(response.status, response.read(1_000_000))
        finally:
            self._forget(connection.sock)
            connection.close()

    def _open_socket(self, opened: socket.socket, data: bytes, receive_buffer: int | None) -> None:
        if receive_buffer is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        opened.settimeout(PATIENCE)
        opened.bind((SOURCE, 0))
        opened.connect(self.rng.choice(self.addresses))
        opened.sendall(data)

    def _register(self, opened: socket.socket) -> None:
        with self._lock:
            self._sockets.add(opened)
        if self._stopping.is_set():
            opened.shutdown(socket.SHUT_RDWR)

    def _forget(self, opened: socket.socket | None) -> None:
        with self._lock:
            self._sockets.discard(opened)

    def _judge(self, request: str, answer: Answer) -> None:
        if self._stopping.is_set():
            return
        with self._lock:
            self.counts[self._attack.name, answer.status] += 1
        excused = answer.status == 503 or (answer.status in (502, 504) and self._faults)
        if answer.status >= 500 and not excused:
            self.report(request, f"answered with {answer.status}: {excerpt(answer.body)}")
        if self.victim.secret.encode() in answer.body:
            self.report(request, f"the answer contains what belongs to another account: {excerpt(answer.body)}")


def excerpt(body: bytes) -> str:
    """Return the beginning of a body."""
    return body[:300].decode(errors="replace")

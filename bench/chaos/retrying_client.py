"""Requests of a fleet's client: through either web process, retried until there is a final reply.

It is an ordinary client that needs its work done: broken connections, time-outs, 408, 429 and 5xx are retried after a
pause that doubles, with the same Idempotency-Key, until the fleet's deadline.
"""

import http.client
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from bench.chaos.transcripts import ClientTranscript, RecordedReply
from bench.harness.client import Address, open_connection

#: Seconds that a client waits for an immediate reply, and for one that needs a worker.
REPLY_TIMEOUT, WORK_TIMEOUT = 10.0, 45.0

#: Seconds without data on a stream after which its client reconnects to another web process. The platform's comments
#: come only every 15 s, but a client loses nothing by reconnecting.
STALL_TIMEOUT = 5.0

#: Seconds before the first retry, and at most between two.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0

#: Statuses that are retried, and the codes of a 409 that are: an earlier request still runs, or the work was cancelled.
RETRIED_STATUSES = frozenset({0, 408, 429, 500, 502, 503, 504})
RETRIED_CONFLICTS = frozenset({"idempotency_key_in_flight", "meditation_ending", "cancelled"})

#: Errors of a broken connection.
CONNECTION_ERRORS = (OSError, http.client.HTTPException)


class DeadlineExceeded(Exception):
    """The fleet's deadline came before the work was done."""


class Deadline:
    """When clients stop: never, until the fleet ends; then after some seconds."""

    def __init__(self) -> None:
        self.until = math.inf
        self._ending = threading.Event()

    def set(self, seconds: float) -> None:
        """Stop starting work, and let running work continue for so many seconds."""
        self.until = time.monotonic() + seconds
        self._ending.set()

    @property
    def is_set(self) -> bool:
        """Whether no more work is to be started."""
        return self._ending.is_set()

    def check(self) -> None:
        """Raise DeadlineExceeded when it has passed."""
        if time.monotonic() > self.until:
            raise DeadlineExceeded

    def pause(self, seconds: float) -> None:
        """Pause between two pieces of work; the pause ends when the deadline is set."""
        self._ending.wait(seconds)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply; the status is 0 when there was none."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body, parsed; empty if it is not an object."""
        try:
            parsed = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @property
    def code(self) -> str:
        """The code of an error."""
        error = self.json().get("error")
        return str(error.get("code")) if isinstance(error, dict) else ""

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in RETRIED_STATUSES or (self.status == 409 and self.code in RETRIED_CONFLICTS)

    def recorded(self) -> RecordedReply:
        """Return the reply as a transcript records it."""
        return RecordedReply(time.monotonic(), self.status, self.code, str(self.json().get("id") or ""))


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request: method, path, body and headers. A body that is no JSON has its type in the headers."""

    method: str
    path: str
    body: Mapping[str, Any] | bytes | None = None
    headers: Mapping[str, str] | None = None


class RetryingClient:
    """Sends the requests of one account's client to web processes that it chooses at random."""

    def __init__(self, addresses: Sequence[Address], token: str, rng: Random, deadline: Deadline) -> None:
        self.addresses = addresses
        self.token = token
        self.deadline = deadline
        self._rng = rng
        self._failed: int | None = None

    def choose_web(self) -> int:
        """Choose the number of a web process: the next one after one that failed, else any."""
        if self._failed is None:
            return self._rng.randrange(len(self.addresses))
        return (self._failed + 1) % len(self.addresses)

    def record_web(self, web: int, *, failed: bool) -> None:
        """Record whether a web process answered."""
        self._failed = web if failed else None

    @contextmanager
    def open(
        self, web: int, request: HttpRequest, timeout: float = REPLY_TIMEOUT
    ) -> Iterator[tuple[http.client.HTTPConnection, http.client.HTTPResponse]]:
        """Send one request on a connection of its own; the body is unread. Raises CONNECTION_ERRORS."""
        connection = open_connection(self.addresses[web], timeout)
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {self.token}",
            **(request.headers or {}),
        }
        try:
            body = orjson.dumps(request.body) if isinstance(request.body, Mapping) else request.body
            connection.request(request.method, request.path, body, headers)
            response = connection.getresponse()
            self.record_web(web, failed=response.status == 503)
            yield connection, response
        except CONNECTION_ERRORS:
            self.record_web(web, failed=True)
            raise
        finally:
            connection.close()

    def send_once(self, request: HttpRequest, timeout: float = REPLY_TIMEOUT) -> Reply:
        """Send a request once."""
        try:
            with self.open(self.choose_web(), request, timeout) as (_, response):
                headers = {name.lower(): value for name, value in response.getheaders()}
                return Reply(response.status, headers, response.read())
        except CONNECTION_ERRORS as error:
            return Reply(0, {}, repr(error).encode())

    def send(
        self,
        transcript: ClientTranscript,
        request: HttpRequest,
        *,
        timeout: float = REPLY_TIMEOUT,
        record: Callable[[RecordedReply], None] = lambda reply: None,
    ) -> Reply:
        """Send a request until there is a final reply; `record` gets every reply. Raises DeadlineExceeded."""
        for _ in self.tries():
            reply = self.send_once(request, timeout)
            record(reply.recorded())
            self.check_reply(transcript, f"{request.method} {request.path}", reply)
            if not reply.retryable:
                break
        return reply

    def tries(self, progress: Callable[[], int] = lambda: 0) -> Iterator[None]:
        """Yield once for each try, with pauses that double while there is no progress. Raises DeadlineExceeded."""
        pause = FIRST_PAUSE
        while True:
            self.deadline.check()
            before = progress()
            yield
            pause = FIRST_PAUSE if progress() > before else pause
            time.sleep(pause * self._rng.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE)

    def check_reply(self, transcript: ClientTranscript, request: str, reply: Reply) -> None:
        """Record a reply that no fault explains: a 500, or a final 4xx."""
        if reply.status == 500 or (400 <= reply.status < 500 and reply.status != 429 and not reply.retryable):
            transcript.unexpected.append(f"{request} was answered with {reply.status}: {reply.body[:300].decode()}")

"""How a client of the fleet speaks to the platform: through either web process, and again where it gets no answer.

It is an ordinary client that wants its work done: a broken connection, a silence, 408, 429 and 5xx are tried again
after a pause that doubles, with the same Idempotency-Key, until the fleet's patience is over.
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

from bench.chaos.transcripts import Answer, Transcript
from bench.client import Address

#: Seconds that a client waits for an answer that should come at once, and for one that takes work.
ANSWER, WORK = 10.0, 45.0

#: Seconds of silence on a stream after which its client asks at another door; the platform's own comments come only
#: every 15 s, but a client that hears nothing of an answer loses nothing by asking.
STALL = 5.0

#: Seconds before the second try, and at most between two.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0

#: What is worth another try, and the conflicts that are: the first try still at work, or its work given up with it.
AGAIN = frozenset({0, 408, 429, 500, 502, 503, 504})
AGAIN_CONFLICTS = frozenset({"idempotency_key_in_flight", "cancelled"})

#: What a broken connection raises.
BROKEN = (OSError, http.client.HTTPException)


class OutOfPatience(Exception):
    """The fleet is to end, and this was not done in time."""


class Patience:
    """How long clients go on: for ever, until the fleet ends; then for so many seconds."""

    def __init__(self) -> None:
        self.until = math.inf
        self._closing = threading.Event()

    def end(self, seconds: float) -> None:
        """Nothing new is begun from here on, and what has begun has so many seconds left."""
        self.until = time.monotonic() + seconds
        self._closing.set()

    @property
    def closing(self) -> bool:
        """Whether nothing new is to be begun."""
        return self._closing.is_set()

    def check(self) -> None:
        """Raise OutOfPatience when it is over."""
        if time.monotonic() > self.until:
            raise OutOfPatience

    def idle(self, seconds: float) -> None:
        """A pause between two pieces of work, cut short by the end."""
        self._closing.wait(seconds)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, or with the status 0 none."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body, parsed; empty where it is no object."""
        try:
            parsed = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @property
    def code(self) -> str:
        """The code of a refusal."""
        error = self.json().get("error")
        return str(error.get("code")) if isinstance(error, dict) else ""

    @property
    def again(self) -> bool:
        """Whether the same request may do better later."""
        return self.status in AGAIN or (self.status == 409 and self.code in AGAIN_CONFLICTS)


class Doors:
    """The web processes, as one account's client reaches them. Each request chooses one by the client's own chance."""

    def __init__(self, addresses: Sequence[Address], token: str, rng: Random, patience: Patience) -> None:
        self.addresses = addresses
        self.token = token
        self.patience = patience
        self._rng = rng
        self._failed: int | None = None

    def choose(self) -> int:
        """The number of a door: any, but after one that failed the next."""
        if self._failed is None:
            return self._rng.randrange(len(self.addresses))
        return (self._failed + 1) % len(self.addresses)

    def note(self, door: int, *, failed: bool) -> None:
        """Whether somebody answered at a door."""
        self._failed = door if failed else None

    @contextmanager
    def open(
        self,
        door: int,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = ANSWER,
    ) -> Iterator[tuple[http.client.HTTPConnection, http.client.HTTPResponse]]:
        """One request on a connection of its own, and the answer's head. Raises what is BROKEN."""
        connection = http.client.HTTPConnection(*self.addresses[door], timeout=timeout)
        sent = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}", **(headers or {})}
        try:
            connection.request(method, path, None if body is None else orjson.dumps(body), sent)
            answer = connection.getresponse()
            self.note(door, failed=answer.status == 503)
            yield connection, answer
        except BROKEN:
            self.note(door, failed=True)
            raise
        finally:
            connection.close()

    def once(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = ANSWER,
    ) -> Reply:
        """One try."""
        try:
            with self.open(self.choose(), method, path, body, headers, timeout=timeout) as (_, answer):
                return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        except BROKEN as error:
            return Reply(0, {}, repr(error).encode())

    def patiently(
        self,
        transcript: Transcript,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = ANSWER,
        note: Callable[[Answer], None] | None = None,
    ) -> Reply:
        """Try until there is an answer that stands. Raises OutOfPatience."""
        for _ in self.tries():
            reply = self.once(method, path, body, headers, timeout=timeout)
            if note is not None:
                note(Answer(time.monotonic(), reply.status, reply.code, str(reply.json().get("id") or "")))
            if not reply.again:
                break
            self.complain(transcript, f"{method} {path}", reply)
        return reply

    def tries(self, progress: Callable[[], int] = lambda: 0) -> Iterator[None]:
        """One try after the other, with longer and longer pauses between while they make none. Raises OutOfPatience."""
        pause = FIRST_PAUSE
        while True:
            self.patience.check()
            before = progress()
            yield
            pause = FIRST_PAUSE if progress() > before else pause
            time.sleep(pause * self._rng.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE)

    def complain(self, transcript: Transcript, what: str, reply: Reply) -> None:
        """Note an answer that no client should get, whatever breaks: an unknown error, or a refusal out of place."""
        if reply.status == 500 or (400 <= reply.status < 500 and reply.status != 429 and not reply.again):
            transcript.strange.append(f"{what} was answered with {reply.status}: {reply.body[:300].decode()}")

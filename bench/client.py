"""One client of the HTTP door that notes when it hears what: for latencies, kills and cancels."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from models.platform.ids import new_id

Address = tuple[str, int]

#: Seconds that a client waits for whatever should come next.
PATIENCE = 30.0

DELTA = "response.output_text.delta"


class Broken(Exception):
    """The platform did not do what it promises, so there is nothing to measure."""


@dataclass(frozen=True, slots=True)
class Heard:
    """An event and when it was heard, by time.perf_counter."""

    at: float
    sequence: int
    type: str
    data: bytes

    def json(self) -> dict[str, Any]:
        """The event."""
        parsed: dict[str, Any] = orjson.loads(self.data)
        return parsed


class Client:
    """One connection, for one request at a time."""

    def __init__(self, address: Address, token: str = "") -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request that is answered with JSON."""
        parsed: dict[str, Any] = orjson.loads(self._request("POST", path, orjson.dumps(body)).read())
        return parsed

    def get(self, path: str) -> dict[str, Any]:
        """A question that is answered with JSON."""
        parsed: dict[str, Any] = orjson.loads(self._request("GET", path).read())
        return parsed

    def stream(self, text: str, **options: Any) -> Iterator[Heard]:
        """A turn, streamed to its end."""
        body = {"input": text, "stream": True, **options}
        return frames(self._request("POST", "/v1/responses", orjson.dumps(body)))

    def follow(self, path: str) -> Iterator[Heard]:
        """A stream that is there already, to its end."""
        return frames(self._request("GET", path))

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def _request(self, method: str, path: str, body: bytes | None = None) -> http.client.HTTPResponse:
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        if answer.status >= 300:
            raise Broken(f"{method} {path} was answered with {answer.status}: {answer.read().decode()[:500]}")
        return answer


def frames(answer: http.client.HTTPResponse) -> Iterator[Heard]:
    """The events of a stream as they come. Raises Broken when it ends within one."""
    buffer = b""
    while data := answer.read1(65536):
        now = time.perf_counter()
        whole, buffer = cut(buffer + data)
        yield from (heard(now, frame) for frame in whole)
    if buffer:
        raise Broken("the stream ended within an event")


def cut(received: bytes) -> tuple[list[bytes], bytes]:
    """The whole frames in what has come of a stream, comments left out, and the beginning of the next one."""
    *whole, rest = received.split(b"\n\n")
    return [frame for frame in map(without_pings, whole) if frame], rest


def without_pings(frame: bytes) -> bytes:
    """A frame without the comments in front of it: each is a line, and no frame of its own."""
    while frame.startswith(b":"):
        frame = frame.partition(b"\n")[2]
    return frame


def heard(now: float, frame: bytes) -> Heard:
    """A frame of a stream as our server writes it: id, event, data."""
    sequence, type_, data = frame.split(b"\n", 2)
    return Heard(now, int(sequence[4:]), type_[7:].decode(), data[6:])


class Listener:
    """A turn whose stream is read by a thread, while the caller does something else to it."""

    def __init__(self, client: Client, text: str, **options: Any) -> None:
        self.events: list[Heard] = []
        self._ended = False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(client, text, options), daemon=True)
        self._thread.start()

    def wait(self, wanted: Callable[[Heard], bool], count: int = 1) -> Heard:
        """The `count`-th event of a kind, once it has come. Raises Broken when it doesn't."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._found(wanted)) >= count, PATIENCE)
            found = self._found(wanted)
        if len(found) < count:
            raise Broken(f"a turn came to an end, or to a halt, too soon: {self._error or self.events[-3:]}")
        return found[count - 1]

    def to_end(self) -> list[Heard]:
        """All events, once the stream has ended."""
        with self._changed:
            ended = self._changed.wait_for(lambda: self._ended, PATIENCE)
        if self._error or not ended:
            raise self._error or Broken("a turn did not end")
        return self.events

    def _found(self, wanted: Callable[[Heard], bool]) -> list[Heard]:
        return [event for event in self.events if wanted(event)]

    def _read(self, client: Client, text: str, options: Mapping[str, Any]) -> None:
        try:
            for event in client.stream(text, **options):
                with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 - it belongs to the thread that asks
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def sign_up(address: Address) -> str:
    """A new account's token."""
    entry = {"email": f"{new_id('bench')}@example.com", "password": "correct horse battery staple"}
    token: str = Client(address).post("/signup", entry)["token"]
    return token


def is_delta(event: Heard) -> bool:
    """Whether an event carries text."""
    return event.type == DELTA


def text_of(events: list[Heard]) -> str:
    """The text that a client has read."""
    return "".join(event.json()["delta"] for event in events if is_delta(event))


def check(events: list[Heard], tokens: int | None = None) -> None:
    """Whether a stream is whole and, of a scripted turn with so many tokens, to the letter. Raises Broken."""
    if [event.sequence for event in events] != list(range(len(events))):
        raise Broken(f"the sequence numbers have gaps or repeats: {[event.sequence for event in events]}")
    if events[-1].type not in ("response.completed", "response.incomplete"):
        raise Broken(f"a turn ended with {events[-1].type}: {events[-1].data.decode()[:500]}")
    if tokens is not None and text_of(events) != script(tokens):
        raise Broken(f"a scripted turn said {text_of(events)[:500]!r}")


def script(tokens: int) -> str:
    """What the scripted engine answers."""
    return "".join(f"w{number} " for number in range(tokens))

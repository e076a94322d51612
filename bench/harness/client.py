"""An HTTP client that records when each event arrives, and streams that a thread reads while the caller acts."""

import http.client
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Generic, TypeVar

import orjson

from bench.harness.sse import ALL_EVENTS, CheckFailed, ReceivedEvent, chunks, read_events
from models.platform.ids import new_id

Address = tuple[str, int]


class TlsAddress(tuple[str, int]):
    """A host and port behind TLS, whose certificate an authority in the file SSL_CERT_FILE has signed."""

    __slots__ = ()


E = TypeVar("E")

#: Seconds that a client waits for the next byte.
READ_TIMEOUT = 30.0

PASSWORD = "correct horse battery staple"


@cache
def tls_context() -> ssl.SSLContext:
    """Return the context that checks certificates."""
    return ssl.create_default_context()


def open_connection(address: Address, timeout: float) -> http.client.HTTPConnection:
    """Return a connection, which is made with the first request."""
    if isinstance(address, TlsAddress):
        return http.client.HTTPSConnection(*address, timeout=timeout, context=tls_context())
    return http.client.HTTPConnection(*address, timeout=timeout)


def url_of(address: Address) -> str:
    """Return the URL of a server."""
    host, port = address
    return f"{'https' if isinstance(address, TlsAddress) else 'http'}://{host}:{port}"


class Client:
    """One connection, for one request at a time. Every request raises CheckFailed on a status of 300 or above."""

    def __init__(self, address: Address, token: str = "", timeout: float = READ_TIMEOUT) -> None:
        self._connection = open_connection(address, timeout)
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}", **ALL_EVENTS}

    def post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """POST a JSON object, and return the JSON answer."""
        parsed: dict[str, Any] = orjson.loads(self.request("POST", path, orjson.dumps(body), headers).read())
        return parsed

    def get(self, path: str) -> dict[str, Any]:
        """GET a JSON object."""
        parsed: dict[str, Any] = orjson.loads(self.request("GET", path).read())
        return parsed

    def stream(self, text: str, **options: Any) -> Iterator[ReceivedEvent]:
        """Create a turn, and yield its events to the end."""
        body = {"input": text, "stream": True, **options}
        return read_events(chunks(self.request("POST", "/v1/responses", orjson.dumps(body))))

    def follow(self, path: str) -> Iterator[ReceivedEvent]:
        """Yield the events of an existing stream to the end."""
        return read_events(chunks(self.request("GET", path)))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """Send a request, and return the response with its body unread."""
        self._connection.request(method, path, body, {**self._headers, **(headers or {})})
        response = self._connection.getresponse()
        if response.status >= 300:
            raise CheckFailed(f"{method} {path} was answered with {response.status}: {response.read().decode()[:500]}")
        return response


class BackgroundStream(Generic[E]):
    """Collects events in a thread, so that the caller can act while they arrive."""

    def __init__(self, events: Iterable[E]) -> None:
        self.events: list[E] = []
        self.error: Exception | None = None
        self.finished = False
        self._source = events
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_until(self, condition: Callable[[], object], timeout: float = READ_TIMEOUT) -> bool:
        """Wait until a condition on `events` holds; False when the stream finishes or time runs out before."""
        with self._changed:
            self._changed.wait_for(lambda: self.finished or condition(), timeout)
            return bool(condition())

    def wait_for(self, matches: Callable[[E], bool], count: int = 1) -> E:
        """Wait for the `count`-th matching event. Raises CheckFailed when it does not arrive."""
        self.wait_until(lambda: len(self.matching(matches)) >= count)
        matching = self.matching(matches)
        if len(matching) < count:
            raise CheckFailed(f"the stream ended or stalled too soon: {self.error or self.events[-3:]}")
        return matching[count - 1]

    def matching(self, matches: Callable[[E], bool]) -> list[E]:
        """Return the events so far that match."""
        return [event for event in self.events if matches(event)]

    def read_to_end(self, timeout: float = READ_TIMEOUT) -> list[E]:
        """Wait for the end of the stream, and return all events. Raises the error that ended it, or CheckFailed."""
        self.join(timeout)
        if self.error or not self.finished:
            raise self.error or CheckFailed(f"the stream did not end within {timeout:g} s")
        return self.events

    def join(self, timeout: float) -> None:
        """Wait for the end of the stream, successful or not."""
        self._thread.join(timeout)

    def _read(self) -> None:
        try:
            for event in self._source:
                with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 - raised in the thread that waits
            self.error = error
        with self._changed:
            self.finished = True
            self._changed.notify_all()


def event_type(name: str) -> Callable[[ReceivedEvent], bool]:
    """Return a predicate that matches events of one type."""
    return lambda event: event.type == name


def sign_up(address: Address) -> str:
    """Create an account, and return its owner's token."""
    body = {"email": f"{new_id('bench')}@example.com", "password": PASSWORD}
    token: str = Client(address).post("/signup", body)["token"]
    return token

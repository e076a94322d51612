"""A client of event streams that never gives up: it comes back with its last id, to whichever web process lives."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from models.journal.events import ENDINGS

REWOUND = "sangha:journal.rewound"
RESTARTED = "sangha:answer.restarted"
DELTA = "response.output_text.delta"


def wait_until(condition: Callable[[], object], timeout: float = 30.0) -> None:
    """Look again and again until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


@dataclass(frozen=True)
class Heard:
    """One event as it came: in which connection, and when (`time.monotonic`)."""

    sequence: int
    type: str
    data: dict[str, Any]
    connection: int
    at: float


def frames(lines: Iterator[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The events of a stream, each only once it is whole."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield int(fields["id"]), fields["event"], orjson.loads(fields["data"])
            fields = {}


class Follower:
    """Follows one turn, in a thread, from its creation or from a sequence number."""

    def __init__(
        self,
        addresses: Callable[[], Sequence[str]],
        headers: Mapping[str, str],
        *,
        body: Mapping[str, Any] | None = None,
        response_id: str = "",
        after: int = -1,
        by_query: bool = False,
        timeout: float = 60.0,
    ) -> None:
        self.events: list[Heard] = []
        self.response_id = response_id
        self.connections = 0
        self.clean_ends = 0
        self.refusals: list[int] = []
        self._addresses = addresses
        self._headers = dict(headers)
        self._body = body
        self._after = after
        self._by_query = by_query
        self._deadline = time.monotonic() + timeout
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "Follower":
        """Begin to follow."""
        self._thread.start()
        return self

    @property
    def last(self) -> int:
        """The last sequence number heard, and so where to go on."""
        return self.events[-1].sequence if self.events else self._after

    @property
    def ended(self) -> bool:
        """Whether the last event has come."""
        return bool(self.events) and self.events[-1].type.encode() in ENDINGS

    @property
    def types(self) -> list[str]:
        """What was heard, in order."""
        return [event.type for event in self.events]

    @property
    def job_id(self) -> str:
        """The job of the turn."""
        return str(self.wait_for(1)[0].data["response"]["job_id"])

    @property
    def text(self) -> str:
        """The deltas joined that stand; a restart of the answer begins a new text."""
        text = ""
        for event in self.standing:
            text = "" if event.type == RESTARTED else text + event.data["delta"] if event.type == DELTA else text
        return text

    def longest_pause(self, since: float) -> float:
        """Seconds between two events, the later of which came after `since` (`time.monotonic`)."""
        times = [event.at for event in self.events]
        return max(later - max(earlier, since) for earlier, later in itertools.pairwise(times) if later > since)

    @property
    def standing(self) -> list[Heard]:
        """The events that stand: a rewind takes back those from its number on."""
        standing: list[Heard] = []
        for event in self.events:
            if event.type == REWOUND:
                standing = [other for other in standing if other.sequence < event.sequence]
            standing.append(event)
        return standing

    def wait_for(
        self, count: int = 0, *, deltas: int = 0, type_: str | None = None, timeout: float = 60
    ) -> list[Heard]:
        """Wait until so many events, deltas, or one of a type have come."""

        def there() -> bool:
            return (
                len(self.events) >= count
                and self.types.count(DELTA) >= deltas
                and (type_ is None or type_ in self.types)
            )

        with self._changed:
            self._changed.wait_for(lambda: there() or self._error is not None or self.ended, timeout)
            self._raise()
            assert there(), f"only {self.types} came, the last one {self.events[-1:]}"
        return self.events

    def end(self, timeout: float = 60) -> "Follower":
        """Wait for the end of the stream."""
        self._thread.join(timeout)
        self._raise()
        assert not self._thread.is_alive(), f"the stream does not end: {self.types}"
        return self

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self.ended:
                assert time.monotonic() < self._deadline, f"the stream does not end: {self.types}"
                self._connect()
        except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
            self._error = error
        with self._changed:
            self._changed.notify_all()

    def _connect(self) -> None:
        """One connection, until it ends. One that breaks or is put off is followed by another."""
        addresses = self._addresses()
        try:
            with httpx.Client(timeout=httpx.Timeout(10, read=30)) as client:
                address = addresses[self.connections % len(addresses)]
                with client.stream(**self._request(), headers=self._sent(), **self._target(address)) as answer:
                    if answer.status_code in (502, 503):
                        self.refusals.append(answer.status_code)
                        time.sleep(0.05)
                        return
                    assert answer.status_code == 200, (answer.status_code, answer.read(), self.types)
                    self.connections += 1
                    for sequence, type_, data in frames(answer.iter_lines()):
                        self._hear(sequence, type_, data)
                    self.clean_ends += 1
        except (httpx.TransportError, IndexError, ZeroDivisionError):
            time.sleep(0.02)

    def _request(self) -> dict[str, Any]:
        if self.response_id or self._body is None:
            return {"method": "GET"}
        assert not self.connections, "a turn may be posted only once"
        return {"method": "POST", "json": self._body}

    def _target(self, address: str) -> dict[str, Any]:
        if self.response_id or self._body is None:
            params = {"stream": "true", **({"starting_after": str(self.last)} if self._by_query else {})}
            return {"url": f"{address}/v1/responses/{self.response_id}", "params": params}
        return {"url": f"{address}/v1/responses"}

    def _sent(self) -> dict[str, str]:
        return self._headers | ({"last-event-id": str(self.last)} if self.last >= 0 and not self._by_query else {})

    def _hear(self, sequence: int, type_: str, data: dict[str, Any]) -> None:
        assert data["sequence_number"] == sequence
        assert data["type"] == type_
        if type_ == REWOUND:
            assert sequence <= self.last + 1, (sequence, self.last)
        else:
            assert sequence == self.last + 1, f"{sequence} follows {self.last} in connection {self.connections}"
        with self._changed:
            self.events.append(Heard(sequence, type_, data, self.connections, time.monotonic()))
            if not self.response_id:
                self.response_id = data["response"]["id"]
            self._changed.notify_all()

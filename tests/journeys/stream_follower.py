"""A client that follows a turn's stream to its end, over any number of connections to any running web process."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx

from bench.harness.client import BackgroundStream
from bench.harness.sse import DELTA, REWOUND, ReceivedEvent, effective_events, read_events, text_of


class StreamFollower(BackgroundStream[ReceivedEvent]):
    """Follows one turn, in a thread, from its creation or after a sequence number.

    connections  connections that were opened
    clean_ends   connections that the server closed after its last event
    refusals     statuses of requests that were refused for now
    """

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
        self.response_id = response_id
        self.connections = 0
        self.clean_ends = 0
        self.refusals: list[int] = []
        self._addresses = addresses
        self._headers = dict(headers)
        self._body = body
        self._last = after
        self._by_query = by_query
        self._deadline = time.monotonic() + timeout
        super().__init__(self._follow())

    @property
    def last(self) -> int:
        """The last sequence number received, after which to resume."""
        return self._last

    @property
    def ended(self) -> bool:
        """Whether the last event was received."""
        return bool(self.events) and self.events[-1].is_last

    @property
    def types(self) -> list[str]:
        """The types of the events, in order."""
        return [event.type for event in self.events]

    @property
    def job_id(self) -> str:
        """The job of the turn."""
        return str(self.wait_for_events(1)[0].json()["response"]["job_id"])

    @property
    def text(self) -> str:
        """The text of the answer, without what a rewind or a restart replaced."""
        return text_of(self.effective)

    @property
    def effective(self) -> list[ReceivedEvent]:
        """The events without those that a rewind replaced."""
        return effective_events(self.events)

    def longest_pause(self, since: float) -> float:
        """Return the longest time between two events, counted from `since` (`time.monotonic`)."""
        times = [event.at for event in self.events]
        return max(later - max(earlier, since) for earlier, later in itertools.pairwise(times) if later > since)

    def wait_for_events(
        self, count: int = 0, *, deltas: int = 0, type_: str | None = None, timeout: float = 60
    ) -> list[ReceivedEvent]:
        """Wait for a number of events, of deltas, or for an event of a type."""

        def received() -> bool:
            return (
                len(self.events) >= count
                and self.types.count(DELTA) >= deltas
                and (type_ is None or type_ in self.types)
            )

        if not self.wait_until(received, timeout):
            if self.error is not None:
                raise self.error
            raise AssertionError(f"only {self.types} were received, the last one {self.events[-1:]}")
        return self.events

    def end(self, timeout: float = 60) -> "StreamFollower":
        """Wait for the end of the stream."""
        self.read_to_end(timeout)
        return self

    def _follow(self) -> Iterator[ReceivedEvent]:
        """Yield the events of one connection after the other."""
        while not self.ended:
            assert time.monotonic() < self._deadline, f"the stream does not end: {self.types}"
            try:
                yield from self._connect()
            except (httpx.TransportError, IndexError, ZeroDivisionError):
                time.sleep(0.02)

    def _connect(self) -> Iterator[ReceivedEvent]:
        """Yield the events of one connection, until it ends."""
        addresses = self._addresses()
        with httpx.Client(timeout=httpx.Timeout(10, read=30)) as client:
            address = addresses[self.connections % len(addresses)]
            with client.stream(**self._request(address)) as response:
                if response.status_code in (502, 503):
                    self.refusals.append(response.status_code)
                    time.sleep(0.05)
                    return
                assert response.status_code == 200, (response.status_code, response.read(), self.types)
                self.connections += 1
                for event in read_events(response.iter_raw(), self.connections):
                    self._check(event)
                    yield event
                self.clean_ends += 1

    def _request(self, address: str) -> dict[str, Any]:
        if self.response_id or self._body is None:
            params = {"stream": "true", **({"starting_after": str(self.last)} if self._by_query else {})}
            by_header = self.last >= 0 and not self._by_query
            headers = self._headers | ({"last-event-id": str(self.last)} if by_header else {})
            url = f"{address}/v1/responses/{self.response_id}"
            return {"method": "GET", "url": url, "params": params, "headers": headers}
        assert not self.connections, "a turn may be created only once"
        return {"method": "POST", "url": f"{address}/v1/responses", "json": self._body, "headers": self._headers}

    def _check(self, event: ReceivedEvent) -> None:
        """Check the event's number, and continue after it."""
        payload = event.json()
        assert (payload["sequence_number"], payload["type"]) == (event.sequence, event.type)
        if event.type == REWOUND:
            assert event.sequence <= self.last + 1, (event.sequence, self.last)
        else:
            assert event.sequence == self.last + 1, f"{event.sequence} follows {self.last}, {self.connections=}"
        self._last = event.sequence
        if not self.response_id:
            self.response_id = payload["response"]["id"]

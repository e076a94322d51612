"""Runs of the peer as its own client makes them: a thread, a run in it, and its stream of messages.

The stream carries text as `messages` events, in one chunk of a message each, and its end as `end`. Threads are created
before the clock starts: our turns need none.
"""

import http.client
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from bench.harness.client import Address, BackgroundStream
from bench.harness.sse import CheckFailed, chunks
from bench.load import post_request, send_all

#: Seconds that a client waits for the next byte: longer than the peer takes to find a dead worker, 45 by its settings.
READ_TIMEOUT = 100.0


@dataclass(frozen=True, slots=True)
class PeerEvent:
    """An event and when it was received (`time.monotonic`)."""

    at: float
    type: str
    data: Any

    @property
    def text(self) -> str:
        """The text that it carries; most events carry none."""
        if self.type != "messages" or not isinstance(self.data, list):
            return ""
        content = self.data[0].get("content")
        return content if isinstance(content, str) else ""

    @property
    def succeeded(self) -> bool:
        """Whether the run ended with success."""
        return self.type == "end" and self.data == {"status": "success"}


def parse_frame(at: float, frame: bytes) -> PeerEvent | None:
    """Parse a frame with its fields in any order; None without an event, as for a comment."""
    fields = dict(line.partition(b": ")[::2] for line in frame.splitlines() if line and not line.startswith(b":"))
    if b"event" not in fields:
        return None
    return PeerEvent(at, fields[b"event"].decode(), orjson.loads(fields.get(b"data") or b"null"))


def run_body(text: str) -> bytes:
    """Return the body of a request that creates a run."""
    messages = {"messages": [{"role": "user", "content": text}]}
    return orjson.dumps({"assistant_id": "agent", "input": messages, "stream_mode": ["messages-tuple"]})


class PeerClient:
    """One connection, for one run at a time."""

    def __init__(self, address: Address) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=READ_TIMEOUT)

    def create_thread(self) -> str:
        """Create a thread; returns its id."""
        thread_id: str = orjson.loads(self._request("/threads", b"{}").read())["thread_id"]
        return thread_id

    def stream(self, thread_id: str, text: str) -> Iterator[PeerEvent]:
        """Create a run, and yield its events to the end."""
        rest = b""
        for chunk in chunks(self._request(f"/threads/{thread_id}/runs/stream", run_body(text))):
            now = time.monotonic()
            *frames, rest = (rest + chunk.replace(b"\r\n", b"\n")).split(b"\n\n")
            yield from (event for frame in frames if (event := parse_frame(now, frame)))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _request(self, path: str, body: bytes) -> http.client.HTTPResponse:
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        if response.status >= 300:
            raise CheckFailed(f"the peer answered {path} with {response.status}: {response.read()[:300]!r}")
        return response


class BackgroundRun(BackgroundStream[PeerEvent]):
    """A run whose stream is read in a thread, so that the caller can kill its worker."""

    def __init__(self, client: PeerClient, text: str) -> None:
        super().__init__(client.stream(client.create_thread(), text))

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(event.text for event in self.events)

    @property
    def succeeded(self) -> bool:
        """Whether the stream has reported the run's success."""
        return any(event.succeeded for event in self.events)

    def wait_for_text(self, count: int, after: float = 0.0) -> PeerEvent | None:
        """Wait for the `count`-th piece of text after a moment; None when the stream ends or stalls before."""
        self.wait_until(lambda: len(self._texts(after)) >= count, READ_TIMEOUT)
        texts = self._texts(after)
        return texts[count - 1] if len(texts) >= count else None

    def run_id(self) -> str:
        """Wait for the first event, and return the run's id."""
        if not self.wait_until(lambda: self.events, READ_TIMEOUT):
            raise CheckFailed(f"the peer's stream has no event: {self.error}")
        run_id: str = self.events[0].data["run_id"]
        return run_id

    def _texts(self, after: float) -> list[PeerEvent]:
        return self.matching(lambda event: event.at > after and bool(event.text))


@dataclass(frozen=True, slots=True)
class PeerLoadResult:
    """Runs of several clients at once: how many, in how many seconds, and how many streams were incomplete."""

    runs: int
    seconds: float
    incomplete: int

    @property
    def runs_a_second(self) -> float:
        """Runs whose streams ended, a second, complete or not."""
        return self.runs / self.seconds


def closed_loop(address: Address, connections: int, threads: Sequence[str], text: str) -> PeerLoadResult:
    """Run one run in each thread, over several connections; streams are parsed afterwards.

    text  the text that each stream should carry
    """
    shared = iter([post_request(f"/threads/{thread}/runs/stream", run_body("hello")) for thread in threads])
    seconds, responses = send_all(address, [shared] * connections)
    return PeerLoadResult(len(responses), seconds, sum(not is_complete(response, text) for _, response in responses))


def is_complete(response: bytes, text: str) -> bool:
    """Return whether a stream's bytes carry a whole text, and success."""
    _, _, body = response.partition(b"\r\n\r\n")
    frames = dechunk(body).replace(b"\r\n", b"\n").split(b"\n\n")
    events = [event for frame in frames if (event := parse_frame(0, frame))]
    return "".join(event.text for event in events) == text and any(event.succeeded for event in events)


def dechunk(body: bytes) -> bytes:
    """Return the content of a chunked body."""
    pieces = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        pieces.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    return b"".join(pieces)

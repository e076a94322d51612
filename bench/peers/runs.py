"""Runs of the peer as its own client makes them: a thread, a run in it, and its stream of messages.

The stream tells text as `messages` events, in one chunk of a message each, and its end as `end`. Threads are made
before the clock starts: to us a turn needs none.
"""

import asyncio
import http.client
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import uvloop

from bench.client import Address, Broken

#: Seconds that a client waits for the next byte: longer than the peer takes to find a dead worker, 45 by its settings.
PATIENCE = 100.0

#: What ends a chunked answer.
END = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Event:
    """An event and when it was heard, by time.perf_counter."""

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


def parse(now: float, frame: bytes) -> Event | None:
    """A frame of a stream: its fields in any order. None for one without an event, such as a ping."""
    fields = dict(line.partition(b": ")[::2] for line in frame.splitlines() if line and not line.startswith(b":"))
    if b"event" not in fields:
        return None
    return Event(now, fields[b"event"].decode(), orjson.loads(fields.get(b"data") or b"null"))


def question(text: str) -> bytes:
    """The body of a run."""
    said = {"messages": [{"role": "user", "content": text}]}
    return orjson.dumps({"assistant_id": "agent", "input": said, "stream_mode": ["messages-tuple"]})


class Runs:
    """One connection, for one run at a time."""

    def __init__(self, address: Address) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=PATIENCE)

    def thread(self) -> str:
        """A new thread's id."""
        thread_id: str = orjson.loads(self._request("/threads", b"{}").read())["thread_id"]
        return thread_id

    def stream(self, thread_id: str, text: str) -> Iterator[Event]:
        """A run, streamed to its end."""
        answer = self._request(f"/threads/{thread_id}/runs/stream", question(text))
        buffer = b""
        while data := answer.read1(65536):
            now = time.perf_counter()
            *frames, buffer = (buffer + data.replace(b"\r\n", b"\n")).split(b"\n\n")
            yield from (event for frame in frames if (event := parse(now, frame)))

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def _request(self, path: str, body: bytes) -> http.client.HTTPResponse:
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        if answer.status >= 300:
            raise Broken(f"the peer answers {path} with {answer.status}: {answer.read()[:300]!r}")
        return answer


class Following:
    """A run whose stream a thread follows, while the caller does something to its worker."""

    def __init__(self, runs: Runs, text: str) -> None:
        self.events: list[Event] = []
        self.error: Exception | None = None
        self._changed = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._read, args=(runs, runs.thread(), text), daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """All text so far, as the stream shows it."""
        return "".join(event.text for event in self.events)

    @property
    def ended(self) -> bool:
        """Whether the stream has said that the run ended well."""
        return any(map(succeeded, self.events))

    def wait_for_text(self, count: int, after: float = 0.0) -> Event | None:
        """The `count`-th piece of text heard after a moment; None where the stream ends, or is silent, before."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or len(self._texts(after)) >= count, PATIENCE)
            found = self._texts(after)
        return found[count - 1] if len(found) >= count else None

    def run_id(self) -> str:
        """What the stream's first event tells."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self.events, PATIENCE)
        if not self.events:
            raise Broken(f"the peer's stream tells nothing: {self.error}")
        run_id: str = self.events[0].data["run_id"]
        return run_id

    def wait_over(self) -> None:
        """Until the stream is over, well or not."""
        self._thread.join(PATIENCE)

    def _texts(self, after: float) -> list[Event]:
        return [event for event in self.events if event.at > after and event.text]

    def _read(self, runs: Runs, thread_id: str, text: str) -> None:
        try:
            for event in runs.stream(thread_id, text):
                with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 - what a stream does after a kill is what is measured
            self.error = error
        with self._changed:
            self._over = True
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Round:
    """Runs of several clients at once: how many, in which time, and how many of their streams lacked something."""

    runs: int
    seconds: float
    lacking: int

    @property
    def runs_a_second(self) -> float:
        """Runs whose streams are over, a second, whatever they lack."""
        return self.runs / self.seconds


def closed_loop(address: Address, connections: int, threads: Sequence[str], text: str) -> Round:
    """One run in each thread, over so many connections; nothing is parsed while they run, as in `bench.load`.

    text  what each stream should tell
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seconds, answers = runner.run(_loop(address, connections, threads))
    return Round(len(answers), seconds, sum(not is_whole(answer, text) for answer in answers))


def is_whole(answer: bytes, text: str) -> bool:
    """Whether a stream's bytes hold all of a text, and the good end."""
    _, _, body = answer.partition(b"\r\n\r\n")
    frames = dechunked(body).replace(b"\r\n", b"\n").split(b"\n\n")
    events = [event for frame in frames if (event := parse(0, frame))]
    return "".join(event.text for event in events) == text and any(map(succeeded, events))


def succeeded(event: Event) -> bool:
    """Whether an event is the good end of a run."""
    return event.type == "end" and event.data == {"status": "success"}


def dechunked(body: bytes) -> bytes:
    """The content of a chunked body."""
    pieces = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        pieces.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    return b"".join(pieces)


async def _loop(address: Address, connections: int, threads: Sequence[str]) -> tuple[float, list[bytes]]:
    left, answers = iter(threads), list[bytes]()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_speak(address, left, answers))
    return time.perf_counter() - began, answers


async def _speak(address: Address, left: Iterator[str], answers: list[bytes]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    body = question("hello")
    try:
        for thread_id in left:
            head = (f"POST /threads/{thread_id}/runs/stream HTTP/1.1\r\nHost: bench\r\n"
                    f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n")  # fmt: skip
            writer.write(head.encode() + body)
            answers.append(await whole(reader))
    finally:
        writer.close()


async def whole(reader: asyncio.StreamReader) -> bytes:
    """A chunked answer to its end. Raises Broken when the connection ends within it."""
    answer = b""
    while not answer.endswith(END):
        data = await reader.read(65536)
        if not data:
            raise Broken(f"the connection was closed in mid-answer: {answer[-300:]!r}")
        answer += data
    return answer

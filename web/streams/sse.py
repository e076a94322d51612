"""Server-sent events (HTML standard, 9.2), with few enough parts that ten thousand idle streams fit in one process.

A stream has two tasks: the server's own task for the request, which waits for the client to leave, and a pump from the
source to the client. One timer for all writes comments into silence. A client that doesn't read is dropped one level
below, by `web.http.protocol`, for streams and all other answers alike.
"""

import asyncio
import contextlib
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

from starlette.types import Receive, Scope, Send

from models.platform.errors import TooMany

log = logging.getLogger(__name__)

#: Bytes ready for the wire: one event or several.
Frame = bytes

#: What is to be done when a client leaves before its answer is whole.
OnDeparture = Callable[[], Awaitable[None]]

#: Seconds of silence before a comment shows proxies and clients that the stream lives.
PING_SECONDS = 15.0

#: Comments that are written in one go, and seconds until the next ones: after an event to all, all are due at once.
PINGS, PING_PAUSE = 100, 0.01

#: Seconds after which a source that goes on is told to stop again.
CANCEL_AGAIN = 1.0

#: Frames after which a stream lets the others have their turn: neither a source that has everything at hand nor a write
#: to a client that has left ever gives way by itself.
BREATH = 16

#: One line: the blank one after it would end an event, and OpenAI's client takes that for one without data.
PING = b": ping\n"

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

_TYPE = b'{"type":"'


def frame(sequence: int, data: bytes) -> Frame:
    """One event. `data` is one line of JSON that begins with its type, which is sliced out, not parsed."""
    if not data.startswith(_TYPE):
        raise ValueError("an event begins with its type")
    name = data[len(_TYPE) : data.index(b'"', len(_TYPE))]
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (sequence, name, data)


class Streams:
    """The open streams of one process, the longest silent one first, and the seats that each account has for them."""

    def __init__(self) -> None:
        self._open: OrderedDict[EventStream, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self.seats: Counter[str] = Counter()
        self.closing = False

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: "EventStream") -> None:
        """A stream begins."""
        loop = asyncio.get_running_loop()
        self._open[stream] = loop.time()
        self._timer = self._timer or loop.call_later(PING_SECONDS, self._tick, loop)

    def heard(self, stream: "EventStream") -> None:
        """A stream has been written to, and so is the last to be silent."""
        if stream in self._open:
            self._open[stream] = asyncio.get_running_loop().time()
            self._open.move_to_end(stream)

    def remove(self, stream: "EventStream") -> None:
        """A stream has ended."""
        self._open.pop(stream, None)
        if self._timer is not None and not self._open:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """End all of them, from now on."""
        self.closing = True
        for stream in list(self._open):
            stream.end()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write comments into silence, the longest one first."""
        pause = PING_PAUSE
        for _ in range(PINGS):
            stream, since = next(iter(self._open.items()))
            left = since + PING_SECONDS - loop.time()
            if left > 0:
                pause = max(left, PING_PAUSE)
                break
            stream.ping()
            self.heard(stream)
        self._timer = loop.call_later(pause, self._tick, loop)


class Seat:
    """A request's place among the open streams of its account. To be taken and left on the event loop."""

    __slots__ = ("_limit", "_owner", "_seats", "_taken")

    def __init__(self, streams: Streams, owner: str, limit: int | None) -> None:
        self._seats = streams.seats
        self._owner = owner
        self._limit = limit
        self._taken = False

    def take(self) -> None:
        """Take it, unless that is done. Whatever makes what a stream tells of takes it first. Raises TooMany."""
        if self._taken:
            return
        if self._limit is not None and self._seats[self._owner] >= self._limit:
            message = f"This account has {self._limit} open event streams here, which is all that it may have."
            raise TooMany(message, code="too_many_streams", retry_after=1.0)
        self._seats[self._owner] += 1
        self._taken = True

    def leave(self) -> None:
        """Give it back."""
        if self._taken:
            self._taken = False
            self._seats[self._owner] -= 1
            if not self._seats[self._owner]:
                del self._seats[self._owner]


class EventStream:
    """An ASGI response that carries a source of frames until it ends, the client leaves or the process stops.

    The source is closed (`aclose`) in each of these cases. An error in the source ends the stream like a shutdown:
    the client comes back with its last id.

    on_departure  is awaited when the client leaves before the end
    farewell      what a client hears last where the stream is cut and it has no id to come back with
    """

    __slots__ = (
        "_farewell", "_left", "_on_departure", "_over", "_ping", "_pump", "_send", "_source", "_streams", "_writing",
        "headers",
    )  # fmt: skip

    def __init__(
        self,
        source: AsyncIterator[Frame],
        streams: Streams,
        headers: Mapping[str, str] | None = None,
        *,
        on_departure: OnDeparture | None = None,
        farewell: Frame = b"",
    ) -> None:
        self._source = source
        self._streams = streams
        self._on_departure = on_departure
        self._farewell = farewell
        self._over = self._left = False
        self.headers = [*HEADERS, *((name.encode(), value.encode()) for name, value in (headers or {}).items())]
        self._ping: asyncio.Task[None] | None = None
        self._writing = False

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """More headers, before it is served."""
        self.headers += [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream to its end."""
        self._send = send
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        if scope["method"] == "HEAD" or self._streams.closing:
            await self._close()
            return
        self._start()
        left = False
        try:
            await departure(receive)
            left = self._left or not (self._over or self._streams.closing)
        finally:
            await self._stop()
        if left and self._on_departure is not None:
            await self._on_departure()

    def ping(self) -> None:
        """Write a comment. A write that still waits needs none: its client is not silent but slow."""
        if not self._writing:
            self._ping = asyncio.get_running_loop().create_task(self._write(PING))

    def end(self) -> None:
        """Stop early, in good order: the client gets all that was written and a proper end."""
        # A task that is cancelled before its first step never runs, and so would not say good-bye.
        asyncio.get_running_loop().call_soon(self._pump.cancel)

    def _start(self) -> None:
        self._pump = asyncio.get_running_loop().create_task(self._run())
        self._streams.add(self)

    async def _stop(self) -> None:
        self._streams.remove(self)
        self.end()
        tasks = [task for task in (self._pump, self._ping) if task]
        # A cancel can get lost below: where it meets a time limit of zero, `asyncio.timeout` takes it for its own.
        while (await asyncio.wait(tasks, timeout=CANCEL_AGAIN))[1]:
            self._pump.cancel()

    async def _run(self) -> None:
        try:
            written = 0
            async for data in self._source:
                await self._write(data)
                written += 1
                if written % BREATH == 0:
                    await asyncio.sleep(0)
            self._farewell = b""
        except asyncio.CancelledError:
            log.debug("a stream ended early")
        except OSError:
            log.debug("the client of a stream left")
        except Exception:
            log.exception("the source of a stream failed")
        await self._close()

    async def _write(self, data: bytes) -> None:
        self._writing = True
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except OSError:
            self._left = True
            raise
        self._writing = False
        self._streams.heard(self)

    async def _close(self) -> None:
        if isinstance(self._source, AsyncGenerator):
            await self._source.aclose()
        self._over = True
        with contextlib.suppress(OSError):
            await self._send({"type": "http.response.body", "body": self._farewell, "more_body": False})


async def departure(receive: Receive) -> None:
    """Wait until the client has left or has got all of it: ASGI says `http.disconnect` for both."""
    while (await receive())["type"] != "http.disconnect":
        pass

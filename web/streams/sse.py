"""Server-sent events (HTML standard, 9.2), light enough for ten thousand idle streams in one process.

A stream has two tasks: the server's own task for the request, which waits for the client to disconnect, and a pump from
the source to the client. One timer for all streams writes comments to silent ones. A client that does not read is
disconnected by `web.http.protocol`, like one of any other response.
"""

import asyncio
import contextlib
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from models.access.auth_context import Credential
from models.accounts.accounts import Caller
from models.journal.events import Event
from models.platform.errors import LimitExceeded
from models.platform.json_lines import escape_line_separators
from web.http.disconnects import OnDisconnect, wait_for_disconnect

if TYPE_CHECKING:
    from web.streams.waiting import Wait

log = logging.getLogger(__name__)

#: Bytes ready for the wire: one event or several.
Frame = bytes

#: Seconds of silence before a comment shows proxies and clients that the stream is alive.
PING_SECONDS = 15.0

#: Comments written at once, and seconds until the next ones: after an event to all streams, all are due together.
PINGS, PING_PAUSE = 100, 0.01

#: Seconds after which a source that is still running is cancelled again.
CANCEL_AGAIN = 1.0

#: Frames after which a stream yields to the event loop: neither a source with buffered events nor a write to a
#: disconnected client ever does so by itself.
YIELD_EVERY = 16

#: One line: a blank line after it would end an event, and OpenAI's client would parse that as an event without data.
PING = b": ping\n"

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]

#: What ends a stream by OpenAI's convention.
DONE: Frame = b"data: [DONE]\n\n"

_TYPE = b'{"type":"'

#: Bytes of a write: the server waits for the client before the next one, so no more are copied to its buffer.
SLICE = 65_536


def frame(sequence: int, data: bytes) -> Frame:
    """Encode one event. `data` is one line of JSON that begins with its type, which is sliced out, not parsed."""
    return b"%b%b\n\n" % (_head(sequence, data), escape_line_separators(data))


def frames(events: Sequence[Event]) -> Iterator[Frame]:
    """Encode events as one frame, or as several without a copy of what is large."""
    if sum(len(event.data) for event in events) < SLICE:
        yield b"".join([frame(event.sequence, event.data) for event in events])
        return
    for event in events:
        yield _head(event.sequence, event.data)
        yield escape_line_separators(event.data)
        yield b"\n\n"


def _head(sequence: int, data: bytes) -> bytes:
    if not data.startswith(_TYPE):
        raise ValueError("an event's data must begin with its type")
    name = data[len(_TYPE) : data.index(b'"', len(_TYPE))]
    return b"id: %d\nevent: %b\ndata: " % (sequence, name)


class OpenStreams:
    """The open streams of one process, the longest silent one first, and how many permits each account holds."""

    def __init__(self) -> None:
        self._open: OrderedDict[EventStream, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._by_credential: dict[Credential, set[EventStream]] = {}
        self.permits: Counter[str] = Counter()
        self.closing = False

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator["EventStream"]:
        return iter(list(self._open))

    def count_slow(self) -> int:
        """Count the streams whose last write waits for the client. May be called from any thread."""
        return sum(stream.is_slow for stream in list(self._open))

    def add(self, stream: "EventStream") -> None:
        """Register a stream that begins."""
        loop = asyncio.get_running_loop()
        self._open[stream] = loop.time()
        self._timer = self._timer or loop.call_later(PING_SECONDS, self._tick, loop)

    def touch(self, stream: "EventStream") -> None:
        """Note that a stream has just been written to."""
        if stream in self._open:
            self._open[stream] = asyncio.get_running_loop().time()
            self._open.move_to_end(stream)

    def remove(self, stream: "EventStream") -> None:
        """Unregister a stream that has ended."""
        self._open.pop(stream, None)
        if self._timer is not None and not self._open:
            self._timer.cancel()
            self._timer = None

    @contextlib.contextmanager
    def count_for(self, stream: "EventStream", caller: Caller | None) -> Iterator[None]:
        """Register a stream's credential during the block, unless the stream is public."""
        if caller is None:
            yield
            return
        credential = Credential.of(caller)
        self._by_credential.setdefault(credential, set()).add(stream)
        try:
            yield
        finally:
            self._by_credential[credential].remove(stream)
            if not self._by_credential[credential]:
                del self._by_credential[credential]

    def credentials(self) -> list[Credential]:
        """Return the credentials of open streams."""
        return list(self._by_credential)

    def of(self, credentials: Collection[Credential]) -> list["EventStream"]:
        """Return the open streams of some credentials."""
        streams = (stream for credential in credentials for stream in self._by_credential.get(credential, ()))
        return [stream for stream in streams if stream in self._open]

    def close(self) -> None:
        """End all streams, and every one that begins from now on."""
        self.closing = True
        for stream in list(self._open):
            stream.end()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write comments to silent streams, the longest silent one first."""
        pause = PING_PAUSE
        for _ in range(PINGS):
            stream, since = next(iter(self._open.items()))
            remaining = since + PING_SECONDS - loop.time()
            if remaining > 0:
                pause = max(remaining, PING_PAUSE)
                break
            stream.ping()
            self.touch(stream)
        self._timer = loop.call_later(pause, self._tick, loop)


class StreamPermit:
    """A request's right to one of its account's concurrent event streams. Not thread-safe: use it on the event loop."""

    __slots__ = ("_acquired", "_limit", "_owner", "_permits")

    def __init__(self, streams: OpenStreams, owner: str, limit: int | None) -> None:
        self._permits = streams.permits
        self._owner = owner
        self._limit = limit
        self._acquired = False

    def acquire(self) -> None:
        """Acquire the permit unless it is held.

        Raises LimitExceeded at the account's limit, so acquire it before creating anything that the stream is about.
        """
        if self._acquired:
            return
        if self._limit is not None and self._permits[self._owner] >= self._limit:
            message = f"This account has reached its limit of {self._limit} open event streams."
            raise LimitExceeded(message, code="too_many_streams", retry_after=1.0)
        self._permits[self._owner] += 1
        self._acquired = True

    def release(self) -> None:
        """Release the permit if it is held."""
        if self._acquired:
            self._acquired = False
            self._permits[self._owner] -= 1
            if not self._permits[self._owner]:
                del self._permits[self._owner]


class EventStream:
    """An ASGI response that sends a source of frames until it ends, the client disconnects or the process stops.

    The source is closed (`aclose`) in each of these cases. An error in the source ends the stream like a shutdown: the
    client reconnects with its last id.

    on_disconnect  awaited when the client disconnects before the end
    final_frame    sent when the stream is cut, for clients without an id to reconnect with
    wait           the wait of the turn whose events it sends, which is reported to the client
    written        frames of the source that were written
    """

    __slots__ = (
        "_disconnected", "_ended", "_final_frame", "_on_disconnect", "_ping", "_pump", "_send", "_source", "_streams",
        "_writing", "headers", "wait", "written",
    )  # fmt: skip

    def __init__(
        self,
        source: AsyncIterator[Frame],
        streams: OpenStreams,
        headers: Mapping[str, str] | None = None,
        *,
        on_disconnect: OnDisconnect | None = None,
        final_frame: Frame = b"",
        wait: "Wait | None" = None,
    ) -> None:
        self._source = source
        self._streams = streams
        self._on_disconnect = on_disconnect
        self._final_frame = final_frame
        self._ended = self._disconnected = False
        self.headers = [*HEADERS, *((name.encode(), value.encode()) for name, value in (headers or {}).items())]
        self._ping: asyncio.Task[None] | None = None
        self._writing = False
        self.wait = wait
        self.written = 0

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Add headers to the response. Call it before the response is sent."""
        self.headers += [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream to its end."""
        self._send = send
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        if scope["method"] == "HEAD" or self._streams.closing:
            await self._close()
            return
        self._start()
        disconnected = False
        try:
            await wait_for_disconnect(receive)
            disconnected = self._disconnected or not (self._ended or self._streams.closing)
        finally:
            await self._stop()
        if disconnected and self._on_disconnect is not None:
            await self._on_disconnect()

    @property
    def is_slow(self) -> bool:
        """Whether a write waits for the client."""
        return self._writing

    def ping(self) -> None:
        """Write a comment, unless a write is still blocked: then the client is slow, not silent."""
        self.write_between(PING, None)

    def write_between(self, data: bytes, written: int | None) -> None:
        """Write what is not of the source, unless a write is still blocked.

        written  of the source, after which it is written: with more frames it is out of date. None: after any.
        """
        if not self._writing and (self._ping is None or self._ping.done()):
            self._ping = asyncio.get_running_loop().create_task(self._write_between(data, written))
        elif self.wait and written is not None:
            self.wait.retract_report()

    def end(self) -> None:
        """Stop early and in order: the client gets all that was written, the final frame and the end of the body."""
        # A task that is cancelled before its first step never runs, and so would not send the final frame.
        asyncio.get_running_loop().call_soon(self._pump.cancel)

    def _start(self) -> None:
        self._pump = asyncio.get_running_loop().create_task(self._run())
        self._streams.add(self)

    async def _stop(self) -> None:
        self._streams.remove(self)
        self.end()
        tasks = [task for task in (self._pump, self._ping) if task]
        # A cancel can get lost: where it meets a time limit of zero, `asyncio.timeout` takes it for its own.
        while (await asyncio.wait(tasks, timeout=CANCEL_AGAIN))[1]:
            self._pump.cancel()

    async def _run(self) -> None:
        try:
            async for data in self._source:
                await self._write(data)
                self.written += 1
                if self.written % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            self._final_frame = b""
        except asyncio.CancelledError:
            log.debug("An event stream was cut")
        except OSError:
            log.debug("The client of an event stream disconnected")
        except Exception:
            log.exception("The source of an event stream failed")
        await self._close()

    async def _write(self, data: bytes) -> None:
        """Write a frame, or a part of an event, into which no comment may be written."""
        self._writing = True
        for offset in range(0, len(data), SLICE):
            await self._send_body(data[offset : offset + SLICE])  # of a small frame this is no copy
        self._writing = not data.endswith(b"\n")
        self._streams.touch(self)

    async def _write_between(self, data: bytes, written: int | None) -> None:
        if not self._writing and written in (None, self.written):
            await self._send_body(data)
            self._streams.touch(self)
        elif self.wait and written is not None:
            self.wait.retract_report()

    async def _send_body(self, data: bytes) -> None:
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except OSError:
            self._disconnected = True
            raise

    async def _close(self) -> None:
        if isinstance(self._source, AsyncGenerator):
            await self._source.aclose()
        self._ended = True
        with contextlib.suppress(OSError):
            await self._send({"type": "http.response.body", "body": self._final_frame, "more_body": False})

"""Links between parts that can be made to fail: TCP proxies on loopback, all in one thread.

A link forwards to a TCP address or a Unix socket. While it is told to, it delays or holds back what passes in one
direction or both, refuses new connections, cuts those that stand, or tears one in the middle of a message. Ports are
bound once: who was told of one finds it there until the end.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

Address = tuple[str, int]

#: Bytes that are read at a time, and so the most that pass between two looks at what a link is told.
CHUNK = 65_536

#: Closing so sends a reset in place of a farewell, as the kernel does for a process that is gone.
NO_FAREWELL = struct.pack("ii", 1, 0)


class Way:
    """One direction of a link, for all of its connections."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.tears = False
        self._open = asyncio.Event()
        self._open.set()

    def hold(self, held: bool) -> None:
        """Let nothing pass; what comes meanwhile waits. Or let it pass again."""
        if held:
            self._open.clear()
        else:
            self._open.set()

    async def let_pass(self) -> None:
        """Wait as long as what has come must wait."""
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._open.wait()


@dataclass(eq=False, slots=True)
class Passage:
    """One connection through a link: the socket of who came, and that of the server."""

    streams: list[asyncio.StreamWriter]

    def abort(self) -> None:
        """End it without a farewell, to both sides."""
        for stream in self.streams:
            reset(stream)


@dataclass(eq=False)
class Link:
    """What one kind of process reaches one server by. Its methods may be called from any thread.

    up, down  the ways to the server and from it
    """

    name: str
    target: Address | Path
    port: int = 0
    up: Way = field(default_factory=Way)
    down: Way = field(default_factory=Way)
    passages: set[Passage] = field(default_factory=set)
    refuses: bool = False
    loop: asyncio.AbstractEventLoop | None = None
    server: asyncio.Server | None = None

    def delay(self, seconds: float) -> None:
        """Let everything come so many seconds later, in both directions."""
        self._tell(self._delay, seconds)

    def stall(self, *, up: bool = True, down: bool = True) -> None:
        """Hold back what is sent to the server, what it answers, or both; connections stay open."""
        self._tell(self._stall, up, down)

    def refuse(self) -> None:
        """Cut every connection, and take no new one."""
        self._tell(self._refuse)

    def cut(self) -> None:
        """Cut every connection; new ones are welcome."""
        self._tell(self._cut)

    def tear(self) -> None:
        """Cut each connection as soon as the server answers on it: half of that answer gets through."""
        self._tell(self._tear)

    def heal(self) -> None:
        """Be an ordinary link again. What was held back gets through."""
        self._tell(self._heal)

    def _delay(self, seconds: float) -> None:
        self.up.delay = self.down.delay = seconds

    def _stall(self, up: bool, down: bool) -> None:
        self.up.hold(up)
        self.down.hold(down)

    def _refuse(self) -> None:
        self.refuses = True
        self._cut()

    def _cut(self) -> None:
        for passage in list(self.passages):
            passage.abort()

    def _tear(self) -> None:
        self.down.tears = True

    def _heal(self) -> None:
        self.refuses, self.down.tears = False, False
        self._delay(0)
        self._stall(False, False)

    def _tell(self, step: Callable[..., None], *told: object) -> None:
        """Have the thread of the links do a step, and wait until it has."""
        assert self.loop is not None, "the link is not open"

        async def take() -> None:
            step(*told)

        asyncio.run_coroutine_threadsafe(take(), self.loop).result(10)

    async def open(self) -> None:
        """Listen on a free port."""
        self.loop = asyncio.get_running_loop()
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Listen no more, and end what stands. For the thread of the links."""
        if self.server is not None:
            self.server.close()
        self._cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            reset(writer)
            return
        try:
            there, to_server = await self._connect()
        except OSError:  # the server is away: so are we
            reset(writer)
            return
        passage = Passage([writer, to_server])
        self.passages.add(passage)
        ways = [
            asyncio.create_task(forward(reader, to_server, self.up, passage)),
            asyncio.create_task(forward(there, writer, self.down, passage)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        await self._end(passage, ways)

    async def _end(self, passage: Passage, ways: list["asyncio.Task[None]"]) -> None:
        """One side has gone: tell the other one. What was on its way to it gets through, unless it is held back."""
        self.passages.discard(passage)
        for way in ways:
            way.cancel()
        for stream in passage.streams:
            with contextlib.suppress(OSError, RuntimeError):
                stream.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, Path):
            return await asyncio.open_unix_connection(str(self.target))
        return await asyncio.open_connection(*self.target)


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way, passage: Passage) -> None:
    """Carry one direction of a connection until it ends."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            await way.let_pass()
            if way.tears:
                writer.write(data[: len(data) // 2])
                await writer.drain()
                passage.abort()
                return
            writer.write(data)
            await writer.drain()
        await way.let_pass()


def reset(stream: asyncio.StreamWriter) -> None:
    """Close without a farewell."""
    connection = stream.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_FAREWELL)
    stream.transport.abort()


class Links:
    """All links, in a thread of their own, open from `with` to the end of its block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._links: list[Link] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)

    def __enter__(self) -> "Links":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self, name: str, target: Address | Path) -> Link:
        """A link to a server, at a port of its own."""
        link = Link(name, target)
        self._run(link.open())
        self._links.append(link)
        return link

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _end(self) -> None:
        for link in self._links:
            link.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

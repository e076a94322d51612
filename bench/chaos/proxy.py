"""Links between processes that can be made to fail: TCP proxies on loopback, all in one thread.

A link forwards to a TCP address or a Unix socket. On demand it delays or holds back data in one direction or both,
refuses new connections, cuts open ones, or cuts one in the middle of a message. Its port never changes.
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

from bench.harness.client import Address

T = TypeVar("T")

#: The most bytes that are read at once, and so that pass between two checks of a link's state.
CHUNK = 65_536

#: SO_LINGER with a time of 0: closing sends RST instead of FIN, as the kernel does for a killed process.
LINGER_ZERO = struct.pack("ii", 1, 0)


class Direction:
    """One direction of a link, for all of its connections."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.tears = False
        self._open = asyncio.Event()
        self._open.set()

    def hold(self, held: bool) -> None:
        """Hold data back, or let it pass again."""
        if held:
            self._open.clear()
        else:
            self._open.set()

    async def wait(self) -> None:
        """Wait until received data may be forwarded."""
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._open.wait()


@dataclass(eq=False, slots=True)
class ProxiedConnection:
    """One connection through a link: the streams to the client and to the server."""

    streams: list[asyncio.StreamWriter]

    def abort(self) -> None:
        """Reset both sides."""
        for stream in self.streams:
            reset(stream)


@dataclass(eq=False)
class Link:
    """The connection of one kind of process to one server. Its methods may be called from any thread.

    up, down  the directions to the server and from it
    """

    name: str
    target: Address | Path
    port: int = 0
    up: Direction = field(default_factory=Direction)
    down: Direction = field(default_factory=Direction)
    connections: set[ProxiedConnection] = field(default_factory=set)
    refuses: bool = False
    loop: asyncio.AbstractEventLoop | None = None
    server: asyncio.Server | None = None

    def delay(self, seconds: float) -> None:
        """Delay data by so many seconds, in both directions."""
        self._run(self._delay, seconds)

    def stall(self, *, up: bool = True, down: bool = True) -> None:
        """Hold back requests, answers, or both; connections stay open."""
        self._run(self._stall, up, down)

    def refuse(self) -> None:
        """Cut all connections, and refuse new ones."""
        self._run(self._refuse)

    def cut(self) -> None:
        """Cut all connections; new ones are accepted."""
        self._run(self._cut)

    def tear(self) -> None:
        """Cut each connection in the middle of the server's next answer on it."""
        self._run(self._tear)

    def heal(self) -> None:
        """Forward normally again, beginning with the data that was held back."""
        self._run(self._heal)

    def _delay(self, seconds: float) -> None:
        self.up.delay = self.down.delay = seconds

    def _stall(self, up: bool, down: bool) -> None:
        self.up.hold(up)
        self.down.hold(down)

    def _refuse(self) -> None:
        self.refuses = True
        self._cut()

    def _cut(self) -> None:
        for connection in list(self.connections):
            connection.abort()

    def _tear(self) -> None:
        self.down.tears = True

    def _heal(self) -> None:
        self.refuses, self.down.tears = False, False
        self._delay(0)
        self._stall(False, False)

    def _run(self, step: Callable[..., None], *arguments: object) -> None:
        """Run a step in the thread of the links, and wait for it."""
        assert self.loop is not None, "the link is not open"

        async def run() -> None:
            step(*arguments)

        asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    async def open(self) -> None:
        """Listen on a free port."""
        self.loop = asyncio.get_running_loop()
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening, and cut all connections. Call it in the thread of the links."""
        if self.server is not None:
            self.server.close()
        self._cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # asyncio would log it as an error
            await self._forward(reader, writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            reset(writer)
            return
        try:
            from_server, to_server = await self._connect()
        except OSError:  # the server is down
            reset(writer)
            return
        connection = ProxiedConnection([writer, to_server])
        self.connections.add(connection)
        directions = [
            asyncio.create_task(forward(reader, to_server, self.up, connection)),
            asyncio.create_task(forward(from_server, writer, self.down, connection)),
        ]
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        await self._end(connection, directions)

    async def _end(self, connection: ProxiedConnection, directions: list["asyncio.Task[None]"]) -> None:
        """Close both sides after one has closed; data that was written gets through, unless it is held back."""
        self.connections.discard(connection)
        for direction in directions:
            direction.cancel()
        for stream in connection.streams:
            with contextlib.suppress(OSError, RuntimeError):
                stream.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, Path):
            return await asyncio.open_unix_connection(str(self.target))
        return await asyncio.open_connection(*self.target)


async def forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction, connection: ProxiedConnection
) -> None:
    """Forward one direction of a connection until it ends."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            await direction.wait()
            if direction.tears:
                writer.write(data[: len(data) // 2])
                await writer.drain()
                connection.abort()
                return
            writer.write(data)
            await writer.drain()
        await direction.wait()


def reset(stream: asyncio.StreamWriter) -> None:
    """Close with RST."""
    connection = stream.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    stream.transport.abort()


class Links:
    """All links, in a thread, until the end of the `with` block."""

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
        """Open a link to a server, on a port of its own."""
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

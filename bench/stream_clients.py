"""Thousands of clients of event streams, in a process of their own: raw sockets, and of each event its number and text.

Times are of `time.monotonic`, which all processes of a machine share. Clients that reconnect do so at once, to the next
address, with the last id that they received.
"""

import asyncio
import re
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

import orjson
import uvloop

from bench.harness.client import Address
from bench.harness.helper import Helper, helper, write_line
from bench.harness.sse import CheckFailed
from models.journal.events import ENDINGS

#: Seconds that all clients together have for what they wait for.
PATIENCE = 120.0

#: Seconds between two checks of whether all clients have it, and before a reconnect after a refused connection.
INTERVAL, RECONNECT_PAUSE = 0.05, 0.01

#: Connections from one address of the loopback network, fewer than a web process with 20,000 open files allows.
CONNECTIONS_PER_ADDRESS = 4000

#: Files that a process needs beside its connections.
OTHER_FILES = 200

#: Of Linux's <netinet/in.h>; Python's socket module has no name for it before 3.12.
IP_BIND_ADDRESS_NO_PORT = 24


class SeenEvent(NamedTuple):
    """An event at one client: when, its sequence number, its text, and how often the client had reconnected by then."""

    at: float
    sequence: int
    text: str
    reconnects: int


class StreamClients:
    """The clients, as the measuring process uses them. One request at a time."""

    def __init__(self, process: Helper) -> None:
        self._process = process

    def connect(
        self, addresses: Sequence[Address], streams: Sequence[tuple[str, str]], *, reconnect: bool = False
    ) -> None:
        """Add a client for each path and token, all at once at the first address; `connected` waits for them.

        reconnect  whether a client whose stream ends before its last event continues at the next address
        """
        self._process.send({"method": "connect", "addresses": addresses, "streams": streams, "reconnect": reconnect})

    def connected(self) -> list[float]:
        """Return the seconds that each of the clients added last took until its stream was open."""
        return list(self._process.receive())

    def received(self, sequence: int) -> list[float]:
        """Return when each client received an event with this number or a later one; waits for the last client."""
        return list(self._request("received", sequence=sequence))

    def events(self) -> list[list[SeenEvent]]:
        """Return all events of each client since it connected, or since the last call."""
        return [[SeenEvent(*event) for event in events] for events in self._request("events")]

    def delays(self) -> list[float]:
        """Return the seconds from the time in an event's text until it was received, of all events of all clients."""
        return list(self._request("delays"))

    def wait_ended(self) -> None:
        """Wait until all clients have received the last event of their stream."""
        self._request("wait_ended")

    def disconnect(self) -> None:
        """Close all connections at once."""
        self._request("disconnect")

    def _request(self, method: str, **options: Any) -> Any:
        return self._process.request({"method": method, **options})


@contextmanager
def stream_clients() -> Iterator[StreamClients]:
    """Run a process for clients until the end of the block."""
    with helper("bench.stream_clients") as process:
        yield StreamClients(process)


def connection_limit() -> int:
    """Return how many connections a process may have when it raises its limit to the system's hard limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - OTHER_FILES


# The code below runs in the child process.

_FRAME = re.compile(rb"id: (\d+)\nevent: ([^\n]+)\ndata: ([^\n]*)\n\n")
_TEXT = re.compile(rb'"delta":"([^"]*)"')

#: The last chunk of a response, and how many bytes are kept to find it.
_LAST_CHUNK, _KEPT = b"0\r\n\r\n", 8


class StreamClient(asyncio.Protocol):
    """One client, over all of its connections."""

    __slots__ = (
        "_addresses", "_connecting", "_head_read", "_number", "_path", "_reconnect", "_rest", "_started", "_token",
        "_transport", "disconnected", "ended", "events", "last", "lost", "opened", "reconnects", "refusal",
    )  # fmt: skip

    def __init__(self, number: int, addresses: Sequence[Address], path: str, token: str, reconnect: bool) -> None:
        self._number, self._addresses, self._path, self._token = number, addresses, path, token
        self._reconnect = reconnect
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._head_read = False
        self._connecting: asyncio.Task[None] | None = None
        self._started = time.monotonic()
        self.events: list[SeenEvent] = []
        self.last, self.opened, self.reconnects = -1, 0.0, -1
        self.ended = self.disconnected = self.lost = False
        self.refusal = ""

    def connect(self) -> None:
        """Connect, for the first time or again."""
        self.reconnects += 1
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def disconnect(self) -> None:
        """Close the connection for good."""
        self.disconnected = True
        if self._transport is not None:
            self._transport.close()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for attempt in count(self.reconnects):
            connection = _socket(self._number)
            try:
                await loop.sock_connect(connection, tuple(self._addresses[attempt % len(self._addresses)]))
            except OSError as error:
                connection.close()
                if not self._reconnect:
                    self.refusal = str(error)
                    return
                await asyncio.sleep(RECONNECT_PAUSE)
            else:
                await loop.create_connection(lambda: self, sock=connection)
                return

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Request the stream."""
        self._transport, self._rest, self._head_read = transport, b"", False
        last_id = f"Last-Event-ID: {self.last}\r\n" if self.last >= 0 else ""
        head = (
            f"GET {self._path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._token}\r\n"
            f"X-Sangha-Events: all\r\n{last_id}\r\n"
        )
        transport.write(head.encode())

    def connection_lost(self, exc: Exception | None) -> None:
        """Reconnect, where that is wanted."""
        self._transport = None
        self.lost = not (self.disconnected or self.ended or self._reconnect)
        if self._reconnect and not (self.disconnected or self.ended or self.refusal):
            self.connect()

    def data_received(self, data: bytes) -> None:
        """Parse the head, events and the end of the response; comments are skipped."""
        now = time.monotonic()
        data = self._rest + data
        if not self._head_read:
            if b"\r\n\r\n" not in data:
                self._rest = data
                return
            self._read_head(data, now)
        end = 0
        for match in _FRAME.finditer(data):
            end = match.end()
            self._receive(now, int(match[1]), match[2], match[3])
        incomplete = data.find(b"id: ", end)
        self._rest = data[incomplete:] if incomplete >= 0 else data[end:][-_KEPT:]
        if self._rest.endswith(_LAST_CHUNK) and self._transport is not None:
            self._transport.close()

    def _read_head(self, data: bytes, now: float) -> None:
        self._head_read = True
        if data.startswith(b"HTTP/1.1 200 "):
            self.opened = self.opened or now - self._started
        else:
            self.refusal = data.decode(errors="replace")[:500]

    def _receive(self, now: float, sequence: int, type_: bytes, data: bytes) -> None:
        text = _TEXT.search(data)
        self.events.append(SeenEvent(now, sequence, text[1].decode() if text else "", self.reconnects))
        self.last = sequence
        self.ended = self.ended or type_ in ENDINGS


def _socket(number: int) -> socket.socket:
    """Return a socket that takes its port when it is connected, from an address that has ports left."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    connection.bind((f"127.0.1.{number // CONNECTIONS_PER_ADDRESS % 250 + 1}", 0))
    return connection


class ClientPool:
    """All clients of the process. Its methods answer those of StreamClients."""

    def __init__(self) -> None:
        self._clients: list[StreamClient] = []
        self._numbers = count()

    async def connect(
        self, addresses: Sequence[Address], streams: Sequence[tuple[str, str]], reconnect: bool
    ) -> list[float]:
        """Add clients, and wait until their streams are open."""
        new = [StreamClient(next(self._numbers), addresses, path, token, reconnect) for path, token in streams]
        self._clients += new
        for client in new:
            client.connect()
        await self._wait_for_all(lambda client: client.opened > 0)
        return [client.opened for client in new]

    async def received(self, sequence: int) -> list[float]:
        """Wait until all clients have received an event; returns when each did."""
        await self._wait_for_all(lambda client: client.last >= sequence)
        return [next(event.at for event in client.events if event.sequence >= sequence) for client in self._clients]

    async def events(self) -> list[list[SeenEvent]]:
        """Return all events and clear them."""
        events = [client.events for client in self._clients]
        for client in self._clients:
            client.events = []
        return events

    async def delays(self) -> list[float]:
        """Return the delays of all events that carry a time, and clear the events."""
        return [event.at - float(event.text) for events in await self.events() for event in events if event.text]

    async def wait_ended(self) -> None:
        """Wait for the end of all streams."""
        await self._wait_for_all(lambda client: client.ended)

    async def disconnect(self) -> None:
        """Disconnect and remove all clients."""
        for client in self._clients:
            client.disconnect()
        self._clients.clear()

    async def _wait_for_all(self, condition: Callable[[StreamClient], bool]) -> None:
        """Wait until a condition holds for all clients. Raises CheckFailed when it cannot, or after PATIENCE."""
        deadline = time.monotonic() + PATIENCE
        while missing := [client for client in self._clients if not condition(client)]:
            if refused := [client.refusal for client in missing if client.refusal]:
                raise CheckFailed(f"{len(refused)} of {len(self._clients)} streams were refused: {refused[0]}")
            lost = sum(client.lost for client in missing)
            if lost or time.monotonic() > deadline:
                raise CheckFailed(
                    f"of {len(self._clients)} streams {len(missing)} are behind, {lost} were closed early"
                )
            await asyncio.sleep(INTERVAL)


async def serve() -> None:
    """Answer one request a line until the end of the input."""
    pool, reader = ClientPool(), asyncio.StreamReader(limit=2**27)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    while line := await reader.readline():
        write_line(await answer(pool, orjson.loads(line)))


async def answer(pool: ClientPool, request: Mapping[str, Any]) -> Any:
    """Call the method of a request."""
    options = {name: value for name, value in request.items() if name != "method"}
    try:
        return await getattr(pool, request["method"])(**options)
    except CheckFailed as error:
        return {"error": str(error)}


def main() -> None:
    """Serve, with as many open files as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()

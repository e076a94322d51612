"""Very many clients of event streams, in a process of their own: raw sockets, and of each event its number and text.

They keep the time of each event (`time.perf_counter`, which all processes of a machine share). Clients that return do
so at once, at the next address, with the last id that they have heard.
"""

import asyncio
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from time import perf_counter
from typing import Any

import orjson
import uvloop

from bench.client import Address, Broken
from models.journal.events import ENDINGS
from ops.process import launcher_command

#: Seconds that all clients together have for what they wait for.
PATIENCE = 120.0

#: Seconds between two looks at whether all have what they wait for, and before a client comes back from a dead address.
INTERVAL, PAUSE = 0.05, 0.01

#: Connections from one address of the loopback network: the system has some 28,000 ports for each.
FROM_ONE = 5000

#: Files that a process needs beside its connections.
BESIDE = 200

#: An event as one client heard it: when, its sequence number, the text that it carries, and how often the client had
#: come back by then.
Heard = tuple[float, int, str, int]


class Audience:
    """The clients, seen from the process that measures. One question at a time."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def come(self, addresses: Sequence[Address], wanted: Sequence[tuple[str, str]], *, returning: bool = False) -> None:
        """One more client for each path and token, all at once at the first address; `came` says when.

        returning  whether they come back when their stream ends before its last event, to the next address
        """
        self._say("come", addresses=addresses, wanted=wanted, returning=returning)

    def came(self) -> list[float]:
        """Seconds that each of those who came last took until its stream was open."""
        return list(self._answer())

    def hear(self, sequence: int) -> list[float]:
        """When each has heard an event with this number or a later one; waits for the last of them."""
        return list(self._ask("hear", sequence=sequence))

    def heard(self) -> list[list[Heard]]:
        """All that each has heard since it came, or since this was asked last."""
        return [[(at, *rest) for at, *rest in events] for events in self._ask("heard")]

    def delays(self) -> list[float]:
        """Seconds from the time that an event tells in its text until it was heard, for all events of all."""
        return list(self._ask("delays"))

    def end(self) -> None:
        """Wait until all have heard the last event of their stream."""
        self._ask("end")

    def leave(self) -> None:
        """All of them leave at once."""
        self._ask("leave")

    def _ask(self, what: str, **options: Any) -> Any:
        self._say(what, **options)
        return self._answer()

    def _say(self, what: str, **options: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(orjson.dumps({"what": what, **options}) + b"\n")
        self._process.stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = orjson.loads(line) if line else {"error": "the clients' process is gone"}
        if "error" in answer:
            raise Broken(answer["error"])
        return answer["is"]


@contextmanager
def audience() -> Iterator[Audience]:
    """A process for clients, until the end of the block."""
    process = subprocess.Popen(
        launcher_command([sys.executable, "-m", "bench.audience"], signal.SIGKILL),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Audience(process)
    finally:
        process.kill()
        process.communicate()


def room() -> int:
    """How many connections a process may have, where the system's hard limit is its limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - BESIDE


# From here on: inside the process.

_FRAME = re.compile(rb"id: (\d+)\nevent: ([^\n]+)\ndata: ([^\n]*)\n\n")
_TEXT = re.compile(rb'"delta":"([^"]*)"')

#: The last chunk of an answer, and as much of what came as is kept to find it.
_LAST, _KEPT = b"0\r\n\r\n", 8


class Follower(asyncio.Protocol):
    """One client, over all of its connections."""

    __slots__ = (
        "_addresses", "_came", "_head", "_hold", "_number", "_path", "_rest", "_returning", "_tasks", "_token",
        "_transport", "ended", "heard", "last", "left", "lost", "opened", "refusal", "returns",
    )  # fmt: skip

    def __init__(self, number: int, addresses: Sequence[Address], path: str, token: str, returning: bool) -> None:
        self._number, self._addresses, self._path, self._token = number, addresses, path, token
        self._returning = returning
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._head = False
        self._hold: asyncio.Task[None] | None = None
        self._came = perf_counter()
        self.heard: list[Heard] = []
        self.last, self.opened, self.returns = -1, 0.0, -1
        self.ended = self.left = self.lost = False
        self.refusal = ""

    def come(self) -> None:
        """Connect, for the first time or again."""
        self.returns += 1
        self._hold = asyncio.get_running_loop().create_task(self._connect())

    def leave(self) -> None:
        """Go, for good."""
        self.left = True
        if self._transport is not None:
            self._transport.close()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for attempt in count(self.returns):
            connection = _connection(self._number)
            try:
                await loop.sock_connect(connection, tuple(self._addresses[attempt % len(self._addresses)]))
            except OSError as error:
                connection.close()
                if not self._returning:
                    self.refusal = str(error)
                    return
                await asyncio.sleep(PAUSE)
            else:
                await loop.create_connection(lambda: self, sock=connection)
                return

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask for the stream."""
        self._transport, self._rest, self._head = transport, b"", False
        heard = f"Last-Event-ID: {self.last}\r\n" if self.last >= 0 else ""
        head = f"GET {self._path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._token}\r\n{heard}\r\n"
        transport.write(head.encode())

    def connection_lost(self, exc: Exception | None) -> None:
        """Come back, where that is wanted."""
        self._transport = None
        self.lost = not (self.left or self.ended or self._returning)
        if self._returning and not (self.left or self.ended or self.refusal):
            self.come()

    def data_received(self, data: bytes) -> None:
        """Head, events, pings, and the end."""
        now = perf_counter()
        data = self._rest + data
        if not self._head:
            if b"\r\n\r\n" not in data:
                self._rest = data
                return
            self._greeted(data, now)
        end = 0
        for match in _FRAME.finditer(data):
            end = match.end()
            self._hear(now, int(match[1]), match[2], match[3])
        begun = data.find(b"id: ", end)
        self._rest = data[begun:] if begun >= 0 else data[end:][-_KEPT:]
        if self._rest.endswith(_LAST) and self._transport is not None:
            self._transport.close()

    def _greeted(self, data: bytes, now: float) -> None:
        self._head = True
        if data.startswith(b"HTTP/1.1 200 "):
            self.opened = self.opened or now - self._came
        else:
            self.refusal = data.decode(errors="replace")[:500]

    def _hear(self, now: float, sequence: int, type_: bytes, data: bytes) -> None:
        text = _TEXT.search(data)
        self.heard.append((now, sequence, text[1].decode() if text else "", self.returns))
        self.last = sequence
        self.ended = self.ended or type_ in ENDINGS


def _connection(number: int) -> socket.socket:
    """A socket that takes its port when it is connected, from an address that has ports left."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
    connection.bind((f"127.0.1.{number // FROM_ONE % 250 + 1}", 0))
    return connection


#: Of Linux's <netinet/in.h>; Python's socket module has no name for it before 3.12.
_BIND_ADDRESS_NO_PORT = 24


class Hall:
    """All clients of the process."""

    def __init__(self) -> None:
        self._followers: list[Follower] = []
        self._numbers = count()

    async def come(
        self, addresses: Sequence[Address], wanted: Sequence[tuple[str, str]], returning: bool
    ) -> list[float]:
        """See Audience."""
        new = [Follower(next(self._numbers), addresses, path, token, returning) for path, token in wanted]
        self._followers += new
        for follower in new:
            follower.come()
        await self._until(lambda follower: follower.opened > 0)
        return [follower.opened for follower in new]

    async def hear(self, sequence: int) -> list[float]:
        """See Audience."""
        await self._until(lambda follower: follower.last >= sequence)
        return [next(at for at, number, *_ in follower.heard if number >= sequence) for follower in self._followers]

    async def heard(self) -> list[list[Heard]]:
        """See Audience."""
        told = [follower.heard for follower in self._followers]
        for follower in self._followers:
            follower.heard = []
        return told

    async def delays(self) -> list[float]:
        """See Audience."""
        return [at - float(text) for events in await self.heard() for at, _, text, _ in events if text]

    async def end(self) -> None:
        """See Audience."""
        await self._until(lambda follower: follower.ended)

    async def leave(self) -> None:
        """See Audience."""
        for follower in self._followers:
            follower.leave()
        self._followers.clear()

    async def _until(self, done: Callable[[Follower], bool]) -> None:
        """Wait until it holds for all. Raises Broken where it never will."""
        deadline = perf_counter() + PATIENCE
        while missing := [follower for follower in self._followers if not done(follower)]:
            if refused := [follower.refusal for follower in missing if follower.refusal]:
                raise Broken(f"{len(refused)} of {len(self._followers)} streams were refused: {refused[0]}")
            lost = sum(follower.lost for follower in missing)
            if lost or perf_counter() > deadline:
                raise Broken(f"of {len(self._followers)} streams {len(missing)} fell silent, {lost} broke off")
            await asyncio.sleep(INTERVAL)


async def serve() -> None:
    """Answer one question a line until there are no more."""
    hall, reader = Hall(), asyncio.StreamReader(limit=2**27)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    while line := await reader.readline():
        print(orjson.dumps(await answered(hall, orjson.loads(line))).decode(), flush=True)


async def answered(hall: Hall, asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a question comes to."""
    options = {name: value for name, value in asked.items() if name != "what"}
    try:
        return {"is": await getattr(hall, asked["what"])(**options)}
    except Broken as error:
        return {"error": str(error)}


def main() -> None:
    """Serve, with as many open files as the system gives."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()

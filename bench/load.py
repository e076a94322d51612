"""Run many cheap clients on raw sockets, without parsing, since they share the cores with what they measure.

A closed loop: each connection starts its next turn when the previous one has ended. `bench.background_load` keeps a
fixed rate instead.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import uvloop

from bench.harness.client import Address
from bench.harness.sse import CheckFailed

#: The last chunk of a chunked response.
LAST_CHUNK = b"\r\n0\r\n\r\n"

COMPLETED = (b"event: response.completed\n", b"event: response.incomplete\n")

StreamPair = tuple[asyncio.StreamReader, asyncio.StreamWriter]

#: The bytes of a response, and the seconds from its request to its end.
TimedResponse = tuple[float, bytes]


@dataclass(frozen=True, slots=True)
class CompletedTurn:
    """A turn that completed: how many seconds it took, how many events it had, and the last of them."""

    seconds: float
    events: int
    last: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The turns of a round, and how many seconds the round took."""

    seconds: float
    turns: Sequence[CompletedTurn]

    @property
    def turns_a_second(self) -> float:
        """Completed turns a second."""
        return len(self.turns) / self.seconds

    @property
    def events_a_second(self) -> float:
        """Events that reached clients, a second."""
        return sum(turn.events for turn in self.turns) / self.seconds

    @property
    def tokens_a_second(self) -> float:
        """Tokens as the platform counted them, a second."""
        tokens: int = sum(turn.last["response"]["usage"]["output_tokens"] for turn in self.turns)
        return tokens / self.seconds


def closed_loop(address: Address, tokens: Sequence[str], bodies: Sequence[Mapping[str, Any]]) -> LoadResult:
    """Run all turns, over one connection for each token. Raises CheckFailed when one does not complete."""
    shared = iter([orjson.dumps({"stream": True, **body}) for body in bodies])
    seconds, responses = send_all(address, [_turn_requests(token, shared) for token in tokens])
    return LoadResult(seconds, [parse_turn(duration, response) for duration, response in responses])


def _turn_requests(token: str, bodies: Iterator[bytes]) -> Iterator[bytes]:
    return (turn_request(token, body) for body in bodies)


def turn_request(token: str, body: bytes) -> bytes:
    """Return the bytes of a request that creates a turn."""
    return post_request("/v1/responses", body, f"Authorization: Bearer {token}\r\n")


def post_request(path: str, body: bytes, headers: str = "") -> bytes:
    """Return the bytes of a POST."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"{headers}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def send_all(address: Address, requests: Sequence[Iterable[bytes]]) -> tuple[float, list[TimedResponse]]:
    """Send the requests of each connection, one after the other; returns the seconds that all took, and the responses.

    Raises CheckFailed when a connection is closed within a response.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_send_all(address, requests))


async def _send_all(address: Address, requests: Sequence[Iterable[bytes]]) -> tuple[float, list[TimedResponse]]:
    connections = [await asyncio.open_connection(*address) for _ in requests]
    responses: list[TimedResponse] = []
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for connection, own in zip(connections, requests, strict=True):
            group.create_task(_send_each(connection, own, responses))
    seconds = time.monotonic() - began
    for _, writer in connections:
        writer.close()
    return seconds, responses


async def _send_each(connection: StreamPair, requests: Iterable[bytes], responses: list[TimedResponse]) -> None:
    for request in requests:
        began = time.monotonic()
        response = await exchange(connection, request)
        responses.append((time.monotonic() - began, response))


async def exchange(connection: StreamPair, request: bytes) -> bytes:
    """Send one request, and read its chunked response to the end. Raises CheckFailed when it is cut off."""
    reader, writer = connection
    writer.write(request)
    pieces, tail = [], b""
    while not tail.endswith(LAST_CHUNK):
        data = await reader.read(65536)
        if not data:
            raise CheckFailed(f"the connection was closed within a response: {tail.decode(errors='replace')}")
        pieces.append(data)
        tail = (tail + data)[-500:]
    return b"".join(pieces)


def parse_turn(seconds: float, response: bytes) -> CompletedTurn:
    """Parse the bytes of a response. Raises CheckFailed when the turn did not complete."""
    begin = max(response.rfind(ending) for ending in COMPLETED)
    if begin < 0:
        raise CheckFailed(f"a turn did not complete: {response[-500:].decode(errors='replace')}")
    data = response[response.index(b"data: ", begin) + 6 : response.index(b"\n\n", begin)]
    return CompletedTurn(seconds, response.count(b"\nevent: "), orjson.loads(data))

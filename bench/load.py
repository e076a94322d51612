"""Many clients that cost little, since they share the cores with what they measure: raw sockets, nothing parsed.

A closed loop: each connection begins its next turn when the one before has ended. `bench.crowd` keeps to a rate.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import uvloop

from bench.client import Address, Broken

#: The last chunk of a chunked answer.
END = b"\r\n0\r\n\r\n"

COMPLETED = (b"event: response.completed\n", b"event: response.incomplete\n")


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that ended: its seconds, how many events it had, and the last of them."""

    seconds: float
    events: int
    last: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Load:
    """What a round of turns took."""

    seconds: float
    turns: Sequence[Turn]

    @property
    def turns_a_second(self) -> float:
        """Finished turns a second."""
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


def closed_loop(address: Address, tokens: Sequence[str], bodies: Sequence[Mapping[str, Any]]) -> Load:
    """Run all turns, over one connection a token. Raises Broken when one doesn't complete."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_loop(address, tokens, bodies))


async def _loop(address: Address, tokens: Sequence[str], bodies: Sequence[Mapping[str, Any]]) -> Load:
    left = iter([orjson.dumps({"stream": True, **body}) for body in bodies])
    connections = [await asyncio.open_connection(*address) for _ in tokens]
    raw: list[tuple[float, bytes]] = []
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for token, connection in zip(tokens, connections, strict=True):
            group.create_task(_speak(*connection, token, left, raw))
    seconds = time.perf_counter() - began
    for _, writer in connections:
        writer.close()
    return Load(seconds, [turn(taken, answer) for taken, answer in raw])


async def _speak(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    token: str,
    left: Iterator[bytes],
    raw: list[tuple[float, bytes]],
) -> None:
    for body in left:
        began = time.perf_counter()
        answer = await ask(reader, writer, token, body)
        raw.append((time.perf_counter() - began, answer))


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str, body: bytes) -> bytes:
    """The whole answer to a turn, as it came. Raises Broken when the connection ends within it."""
    head = (
        "POST /v1/responses HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    return await _answer(reader)


async def _answer(reader: asyncio.StreamReader) -> bytes:
    pieces, tail = [], b""
    while not tail.endswith(END):
        data = await reader.read(65536)
        if not data:
            raise Broken(f"the connection was closed in mid-answer: {tail.decode(errors='replace')}")
        pieces.append(data)
        tail = (tail + data)[-500:]
    return b"".join(pieces)


def turn(seconds: float, answer: bytes) -> Turn:
    """What came as an answer, understood. Raises Broken when the turn didn't complete."""
    begin = max(answer.rfind(ending) for ending in COMPLETED)
    if begin < 0:
        raise Broken(f"a turn did not complete: {answer[-500:].decode(errors='replace')}")
    data = answer[answer.index(b"data: ", begin) + 6 : answer.index(b"\n\n", begin)]
    return Turn(seconds, answer.count(b"\nevent: "), orjson.loads(data))

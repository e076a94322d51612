"""How much the scripted endpoint can give by itself, so that it is known not to be what is measured."""

import asyncio
import time
from collections.abc import Iterator

import orjson
import uvloop

from bench.client import Address
from bench.peers.runs import whole

ANSWERS = 4000


def answers_a_second(address: Address, connections: int, script: str, answers: int = ANSWERS) -> float:
    """Whole answers a second over so many connections, read by one process that parses nothing."""
    body = orjson.dumps({"model": script, "stream": True, "messages": [{"role": "user", "content": "hello"}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return answers / runner.run(_loop(address, connections, head.encode() + body, iter(range(answers))))


async def _loop(address: Address, connections: int, request: bytes, left: Iterator[int]) -> float:
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_ask(address, request, left))
    return time.perf_counter() - began


async def _ask(address: Address, request: bytes, left: Iterator[int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    for _ in left:
        writer.write(request)
        await whole(reader)
    writer.close()

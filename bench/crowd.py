"""Other people's turns beside what is measured: so many a second, by a process of its own, in an open loop.

Each connection has its share of the rate, and begins its turns by the clock whatever the ones before took; only a turn
that outlasts its share delays the next one. Whoever asks for a crowd is told when it couldn't keep up.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

import orjson
import uvloop

from bench.client import Broken
from bench.load import ask, turn
from bench.stack import Platform, environment
from ops.process import launcher_command

#: Connections, each of an account of its own.
CONNECTIONS = 8

#: The share of the rate that it has to keep.
KEPT = 0.9


@contextmanager
def crowd(platform: Platform, rate: float, body: Mapping[str, Any]) -> Iterator[None]:
    """So many turns a second until the end of the block. Raises Broken where they couldn't be had."""
    process = subprocess.Popen(
        launcher_command([sys.executable, "-m", "bench.crowd"], 9),  # type: ignore[arg-type]
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(platform.settings),
        start_new_session=True,
    )
    asked = {"address": platform.address, "tokens": platform.tokens(CONNECTIONS + 1)[1:], "rate": rate, "body": body}
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(orjson.dumps(asked) + b"\n")
        process.stdin.flush()
        process.stdout.readline()  # each connection has had a turn
        yield
        output, _ = process.communicate(timeout=60)  # the end of its input ends it
        expect_kept(rate, orjson.loads(output or b"0"))
    finally:
        process.kill()
        process.wait()


def expect_kept(rate: float, held: float) -> None:
    """Raises Broken unless the crowd held its rate."""
    if held < rate * KEPT:
        raise Broken(f"a crowd of {rate:.0f} turns a second came to {held:.0f}")


# From here on: inside the process.


def main() -> None:
    """Read what is asked, keep to it until the end of the input, and say what rate was held."""
    asked = orjson.loads(sys.stdin.buffer.readline())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        held = runner.run(gather(**asked))
    print(held, flush=True)


async def gather(address: tuple[str, int], tokens: list[str], rate: float, body: Mapping[str, Any]) -> float:
    """Turns by the clock until there is no more input; finished ones a second."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    said = orjson.dumps({"stream": True, **body})
    connections = [await asyncio.open_connection(*address) for _ in tokens]
    for token, connection in zip(tokens, connections, strict=True):
        turn(0, await ask(*connection, token, said))
    print("ready", flush=True)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        turns = [
            group.create_task(_keep(connection, token, said, began + number / rate, len(tokens) / rate, ended))
            for number, (token, connection) in enumerate(zip(tokens, connections, strict=True))
        ]
    return sum(task.result() for task in turns) / (time.perf_counter() - began)


async def _keep(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    token: str,
    body: bytes,
    begin: float,
    every: float,
    ended: asyncio.Event,
) -> int:
    for number in count():
        try:
            await asyncio.wait_for(ended.wait(), max(begin + number * every - time.perf_counter(), 0))
        except TimeoutError:
            turn(0, await ask(*connection, token, body))
        else:
            return number
    raise AssertionError  # counting has no end


if __name__ == "__main__":
    main()

"""Turns of other accounts at a fixed rate beside what is measured: an open loop, in a process of its own.

Each connection has its share of the rate, and starts its turns by the clock, however long the previous ones took; only
a turn that takes longer than its interval delays the next one. The caller learns when the rate could not be kept.
"""

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import orjson
import uvloop

from bench.harness.client import Address
from bench.harness.helper import helper, write_line
from bench.harness.processes import environment_of
from bench.harness.sse import CheckFailed
from bench.harness.stack import RunningPlatform
from bench.load import StreamPair, exchange, parse_turn, turn_request

#: Number of connections, each with its own account.
CONNECTIONS = 8

#: The share of the rate that has to be reached.
REQUIRED_SHARE = 0.9


@contextmanager
def background_load(platform: RunningPlatform, rate: float, body: Mapping[str, Any]) -> Iterator[None]:
    """Run `rate` turns a second until the end of the block. Raises CheckFailed when that rate was not reached."""
    tokens = platform.tokens(CONNECTIONS + 1)[1:]
    with helper("bench.background_load", environment=environment_of(platform.settings)) as loader:
        loader.request({"address": platform.address, "tokens": tokens, "rate": rate, "body": body})
        yield
        output, _ = loader.process.communicate(timeout=60)  # closes its standard input, at which it exits
        reached = orjson.loads(output or b"0")
        if reached < rate * REQUIRED_SHARE:
            raise CheckFailed(f"a background load of {rate:.0f} turns a second reached {reached:.0f}")


# The code below runs in the child process.


def main() -> None:
    """Read the request, run turns until the end of the input, and write the rate that was reached."""
    request = orjson.loads(sys.stdin.buffer.readline())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        write_line(runner.run(run_load(**request)))


async def run_load(address: Address, tokens: Sequence[str], rate: float, body: Mapping[str, Any]) -> float:
    """Run turns by the clock until the end of the input; returns finished turns a second."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    requests = [turn_request(token, orjson.dumps({"stream": True, **body})) for token in tokens]
    connections = [await asyncio.open_connection(*address) for _ in tokens]
    for request, connection in zip(requests, connections, strict=True):
        parse_turn(0, await exchange(connection, request))
    write_line("ready")
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        turns = [
            group.create_task(_run_turns(connection, request, began + number / rate, len(tokens) / rate, ended))
            for number, (request, connection) in enumerate(zip(requests, connections, strict=True))
        ]
    return sum(task.result() for task in turns) / (time.monotonic() - began)


async def _run_turns(
    connection: StreamPair, request: bytes, begin: float, interval: float, ended: asyncio.Event
) -> int:
    for number in count():
        try:
            await asyncio.wait_for(ended.wait(), max(begin + number * interval - time.monotonic(), 0))
        except TimeoutError:
            parse_turn(0, await exchange(connection, request))
        else:
            return number
    raise AssertionError  # unreachable: count() is infinite


if __name__ == "__main__":
    main()

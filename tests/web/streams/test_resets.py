"""Given a web process that reaches Redis over TCP, when its connections are reset, then no follower is the wiser.

uvloop has a word of its own for writing to a connection that was reset, which redis-py passes on as it is.
"""

import asyncio
from collections.abc import Iterator

import pytest
import uvloop

from bench.chaos.proxy import Link, Links
from tests.web.scripted_job import ScriptedJob, numbers
from web.streams.tail import Tail


@pytest.fixture
def link(valkey) -> Iterator[Link]:
    with Links() as links:
        yield links.open("web-valkey", valkey.socket)


async def cut(link: Link) -> None:
    """Reset all connections, and let the loop see it."""
    link.cut()
    for _ in range(3):
        await asyncio.sleep(0)


def test_histories_are_read_on_over_another_connection(link, database, redis_client, account):
    scripted = ScriptedJob(database, redis_client, account)
    scripted.append_deltas(5)

    async def scenario():
        tail = Tail(f"redis://127.0.0.1:{link.port}", database)
        for _ in range(20):
            assert numbers(await tail._history(scripted.id, -1)) in (list(range(7)), [0, 1])
            await cut(link)
        await tail.stop()

    uvloop.run(scenario())


def test_the_reader_survives_and_misses_nothing(link, database, redis_client, account):
    scripted = ScriptedJob(database, redis_client, account)

    async def scenario():
        tail = Tail(f"redis://127.0.0.1:{link.port}", database)
        await tail.start()
        heard = asyncio.create_task(listen(tail))
        for _ in range(10):
            scripted.append_deltas(1)
            await cut(link)
        scripted.end()
        async with asyncio.timeout(20):
            assert numbers(await heard) == list(range(len(scripted.events)))
        assert not tail._tasks[0].done()
        await tail.stop()

    async def listen(tail):
        return [event async for group in tail.follow(scripted.id) for event in group]

    uvloop.run(scenario())

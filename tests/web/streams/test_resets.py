"""Following jobs while connections to Redis are reset.

uvloop raises RuntimeError when it writes to a reset connection, and redis-py passes it on.
"""

import asyncio
from collections.abc import Iterator

import pytest
import uvloop

from bench.chaos.proxy import Link, Links
from tests.web.scripted_job import ScriptedJob, numbers
from web.streams.tail import Tail
from web.streams.unsent import Held, UnsentBytes


@pytest.fixture
def link(valkey) -> Iterator[Link]:
    with Links() as links:
        yield links.open("web-valkey", valkey.socket)


async def reset_connections(link: Link) -> None:
    """Reset all connections, and let the event loop process it."""
    link.cut()
    for _ in range(3):
        await asyncio.sleep(0)


def test_histories_are_read_over_a_new_connection_after_a_reset(link, database, redis_client, account):
    scripted = ScriptedJob(database, redis_client, account)
    scripted.append_deltas(5)

    async def scenario():
        tail = Tail(f"redis://127.0.0.1:{link.port}", database)
        for _ in range(20):
            page = await tail._history.page(scripted.id, -1, Held(UnsentBytes(), None))
            assert numbers(page.events) in (list(range(7)), [0, 1])
            await reset_connections(link)
        await tail.stop()

    uvloop.run(scenario())


def test_the_reader_misses_no_event_after_resets(link, database, redis_client, account):
    scripted = ScriptedJob(database, redis_client, account)

    async def scenario():
        tail = Tail(f"redis://127.0.0.1:{link.port}", database)
        await tail.start()
        events = asyncio.create_task(all_events(tail))
        for _ in range(10):
            scripted.append_deltas(1)
            await reset_connections(link)
        scripted.end()
        async with asyncio.timeout(20):
            assert numbers(await events) == list(range(len(scripted.events)))
        assert not tail._tasks[0].done()
        await tail.stop()

    async def all_events(tail):
        return [event async for batch in tail.follow(scripted.id) for event in batch]

    uvloop.run(scenario())

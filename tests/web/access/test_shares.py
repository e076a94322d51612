"""The blocking calls of one account leave threads and connections to others."""

import asyncio

import pytest

from models.platform.errors import LimitExceeded
from web.access.shares import Shares


class Calls:
    """Calls that run until they are released, and the most that ran at once."""

    def __init__(self, shares):
        self.shares, self.running, self.most, self.released = shares, [], 0, asyncio.Event()

    async def call(self, owner, name=""):
        async with self.shares.take(owner):
            self.running.append((owner, name))
            self.most = max(self.most, len([who for who, _ in self.running if who == owner]))
            await self.released.wait()


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def test_calls_beyond_the_limit_wait_and_those_of_another_owner_do_not():
    async def scenario():
        shares = Shares(2)
        calls = Calls(shares)
        tasks = [asyncio.create_task(calls.call("busy", number)) for number in range(5)]
        await settle()
        tasks.append(asyncio.create_task(calls.call("other")))
        await settle()
        assert calls.running == [("busy", 0), ("busy", 1), ("other", "")]
        calls.released.set()
        await asyncio.gather(*tasks)
        assert [name for owner, name in calls.running if owner == "busy"] == [0, 1, 2, 3, 4]
        assert shares._shares == {}

    asyncio.run(scenario())


def test_a_call_that_waits_too_long_is_rejected_and_leaves_its_place():
    async def scenario():
        shares = Shares(1, timeout=0.01)
        calls = Calls(shares)
        first = asyncio.create_task(calls.call("busy"))
        await settle()
        with pytest.raises(LimitExceeded) as rejected:
            await calls.call("busy")
        assert (rejected.value.code, rejected.value.retry_after) == ("too_many_requests", 1)
        calls.released.set()
        await first
        await calls.call("busy")
        assert shares._shares == {}

    asyncio.run(scenario())


def test_a_cancelled_wait_leaves_its_place_to_the_next():
    async def scenario():
        calls = Calls(Shares(1))
        first, waiting, last = (asyncio.create_task(calls.call("busy", name)) for name in ("first", "waiting", "last"))
        await settle()
        waiting.cancel()
        calls.released.set()
        await asyncio.gather(first, last)
        assert calls.running == [("busy", "first"), ("busy", "last")]

    asyncio.run(scenario())

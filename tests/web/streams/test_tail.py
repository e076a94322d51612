"""Given a job that is followed, when deliveries are late, lost or repeated, then what is heard is its journal."""

import asyncio
import contextlib

import pytest

from models.redis_client import connect
from ops.servers import Valkey, running_server
from tests.web.telling import Telling, numbers
from web.streams import tail as module
from web.streams.tail import Tail


class Listener:
    """Follows a job on the event loop and keeps what it hears."""

    def __init__(self, tail, job_id, after=-1):
        self.heard = []
        self.changed = asyncio.Condition()
        self.task = asyncio.create_task(self._listen(tail.follow(job_id, after)))

    async def _listen(self, events):
        async for group in events:
            async with self.changed:
                self.heard += group
                self.changed.notify_all()

    async def hears(self, last):
        async with self.changed:
            await self.changed.wait_for(lambda: self.heard and self.heard[-1].sequence >= last)

    async def end(self):
        await self.task
        return self.heard


@contextlib.asynccontextmanager
async def tailing(url, database):
    tail = Tail(url, database)
    await tail.start()
    try:
        async with asyncio.timeout(20):
            yield tail
    finally:
        await tail.stop()


@pytest.fixture
def told(database, redis_client, account):
    return Telling(database, redis_client, account)


@pytest.fixture
def follow(valkey, database):
    """`follow(scenario)`: run it with a tail on the session's servers."""

    def run(scenario):
        async def whole():
            async with tailing(valkey.url, database) as tail:
                await scenario(tail)
            assert not tail._followers, "a follower stays behind"

        asyncio.run(whole())

    return run


@pytest.mark.parametrize("after", [-1, 0, 3])
def test_who_joins_before_during_and_after_hears_the_same(told, follow, after):
    async def scenario(tail):
        before = Listener(tail, told.id, after)
        told.say(5)
        during = Listener(tail, told.id, after)
        await during.hears(6)
        told.say(2)
        told.say(3)
        told.end()
        late = Listener(tail, told.id, after)

        for listener in (before, during, late):
            heard = await listener.end()
            assert [event.data for event in heard] == [event.data for event in told.told[after + 1 :]]

    follow(scenario)


def test_events_that_were_not_delivered_are_read_again(told, follow):
    async def scenario(tail):
        listener = Listener(tail, told.id)
        await listener.hears(1)
        told.say(3, heard=False)
        told.say(1)
        await listener.hears(5)
        told.end()

        assert numbers(await listener.end()) == list(range(7))

    follow(scenario)


def test_events_that_were_delivered_twice_are_heard_once(told, follow):
    async def scenario(tail):
        listener = Listener(tail, told.id)
        await listener.hears(1)
        for follower in tail._followers[told.id]:
            follower.offer(0, [event.data for event in told.told])
            follower.look_again()
        told.say(1)
        told.end()

        assert numbers(await listener.end()) == list(range(4))

    follow(scenario)


def test_who_was_there_before_the_job_reads_nothing_and_hears_all(told, follow, monkeypatch):
    async def never(self, job_id, after):
        raise AssertionError("there is nothing to look up")

    async def scenario(tail):
        follower = tail.subscribe(told.id)
        told.say(2)  # a worker may be quicker than the thread that began the job
        monkeypatch.setattr(Tail, "_history", never)
        follower.begin(told.told[:2])
        told.end()

        heard = [event async for group in tail.follow(told.id, follower=follower) for event in group]
        assert [event.data for event in heard] == [event.data for event in told.told]

    follow(scenario)


def test_who_subscribed_and_never_followed_is_not_left_behind(told, follow):
    async def scenario(tail):
        follower = tail.subscribe(told.id)
        events = tail.follow(told.id, follower=follower)
        tail.unsubscribe(told.id, follower)
        await events.aclose()

    follow(scenario)


def test_a_slow_follower_is_dropped_and_goes_on_from_its_last_number(told, follow, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_QUEUE", 3)

    async def scenario(tail):
        slow = tail.follow(told.id)
        heard = await anext(slow)
        quick = Listener(tail, told.id)
        for _ in range(8):
            (said,) = told.say(1)
            await quick.hears(said.sequence)  # and so the slow one's queue has it too
        heard += [event async for group in slow for event in group]
        assert len(heard) < 10
        rest = Listener(tail, told.id, heard[-1].sequence)
        told.end()

        assert numbers([*heard, *await rest.end()]) == numbers(await quick.end()) == list(range(11))

    follow(scenario)


def test_what_came_while_a_client_was_busy_comes_together(told, follow):
    async def scenario(tail):
        slow = tail.follow(told.id)
        assert numbers(await anext(slow)) == [0, 1]
        quick = Listener(tail, told.id)
        for count in (1, 2, 1):
            await quick.hears(told.say(count)[-1].sequence)  # and so the slow one's queue has it too
        assert numbers(await anext(slow)) == [2, 3, 4, 5]
        told.end()
        assert numbers([event async for group in slow for event in group]) == [6]
        await quick.end()

    follow(scenario)


@pytest.mark.parametrize(
    ("appends", "expected"),
    [
        ([(3, [b"three"]), (4, [b"four", b"five"])], [3, 4, 5]),
        ([(0, [b"old"]), (2, [b"old", b"three"]), (3, [b"three"])], [3]),
        ([(0, [b"old"])], []),
        ([(4, [b"four"])], None),
        ([(3, [b"three"]), (5, [b"five"])], None),
        ([(3, [])], None),
        ([(1, [b'{"type":"sangha.journal.rewound"}', b"new"]), (3, [b"newer"])], [1, 2, 3]),
    ],
)
def test_appends_are_joined_where_nothing_is_missing(appends, expected):
    lines = [(first, [data if data[:1] == b"{" else b'{"type":"t"}' for data in given]) for first, given in appends]

    events = module.joined(lines, 2)

    assert (numbers(events) if events is not None else None) == expected


def test_a_job_that_ended_without_redis_being_told_ends_its_streams(told, follow, monkeypatch):
    monkeypatch.setattr(module, "ROUND", 0.05)

    async def scenario(tail):
        listener = Listener(tail, told.id)
        told.say(2)
        await listener.hears(3)
        told.end(heard=False)

        assert numbers(await listener.end()) == list(range(5))

    follow(scenario)


def test_what_redis_has_forgotten_the_archive_tells_for_ever(told, follow):
    told.say(3)
    told.end()
    told.forget()

    async def scenario(tail):
        for after in (-1, 2, 4, -1):
            assert numbers(await Listener(tail, told.id, after).end()) == list(range(after + 1, 6))

    follow(scenario)


def test_the_archive_tells_the_beginning_and_redis_the_rest(told, follow):
    told.say(3)
    told.checkpoint()
    told.forget()
    told.say(2)

    async def scenario(tail):
        listener = Listener(tail, told.id)
        await listener.hears(6)
        told.end()
        assert numbers(await listener.end()) == list(range(8))

    follow(scenario)


def test_a_rewind_takes_those_back_who_heard_more(told, follow):
    async def scenario(tail):
        listener = Listener(tail, told.id)
        told.say(5)
        await listener.hears(6)
        told.rewind(2)

        await asyncio.wait_for(_hears_type(listener, b"sangha.journal.rewound"), 10)
        assert numbers(listener.heard) == [*range(7), 2]
        listener.task.cancel()
        await asyncio.wait([listener.task])

    follow(scenario)


async def _hears_type(listener, type_):
    async with listener.changed:
        await listener.changed.wait_for(lambda: type_ in [event.type for event in listener.heard])


@pytest.mark.parametrize("beyond", [0, 5])
def test_who_has_heard_all_of_an_ended_job_gets_an_end_at_once(told, follow, beyond):
    told.end()

    async def scenario(tail):
        assert await asyncio.wait_for(Listener(tail, told.id, 2 + beyond).end(), 1) == []

    follow(scenario)


def test_a_deleted_job_ends_its_streams(told, follow, monkeypatch):
    monkeypatch.setattr(module, "ROUND", 0.05)

    async def scenario(tail):
        listener = Listener(tail, told.id)
        await listener.hears(1)
        with told.database.connection() as connection:
            connection.execute("DELETE FROM jobs WHERE id = %s", (told.id,))
        told.forget()

        assert numbers(await listener.end()) == [0, 1]

    follow(scenario)


def test_a_process_that_leaves_ends_its_streams(told, follow):
    async def scenario(tail):
        listener = Listener(tail, told.id)
        await listener.hears(1)
        tail.close_followers()
        assert numbers(await listener.end()) == [0, 1]

    follow(scenario)


def test_redis_goes_and_comes_back(tmp_path, database, account):
    for name in ("run", "logs"):
        (tmp_path / name).mkdir()
    part = Valkey(tmp_path / "valkey", tmp_path / "run")

    with running_server(part, tmp_path / "run", tmp_path / "logs") as child, connect(part.url) as client:
        told = Telling(database, client, account)

        async def scenario():
            async with tailing(part.url, database) as tail:
                listener = Listener(tail, told.id)
                told.say(2)
                await listener.hears(3)
                await asyncio.to_thread(child.kill)
                away = Listener(tail, told.id)
                await away.hears(1)  # the archive has that much
                await asyncio.to_thread(_restart, child)
                told.say(2)
                await listener.hears(5)
                await away.hears(5)
                told.end()
                assert numbers(await listener.end()) == numbers(await away.end()) == list(range(7))

        asyncio.run(scenario())


def test_ended_jobs_are_told_while_redis_is_away(told, database, tmp_path):
    told.say(2)
    told.end()

    async def scenario():
        async with tailing(f"unix://{tmp_path}/nobody.sock", database) as tail:
            assert numbers(await Listener(tail, told.id).end()) == list(range(5))

    asyncio.run(scenario())


def _restart(child):
    child.start()
    child.wait_ready()

"""Given a job that is followed, when deliveries are late, lost or repeated, then what is heard is its journal."""

import asyncio
import contextlib

import pytest

from models.platform.redis_client import connect
from ops.servers import Valkey, running_server
from tests.web.scripted_job import ScriptedJob, numbers
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
def scripted(database, redis_client, account):
    return ScriptedJob(database, redis_client, account)


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
def test_who_joins_before_during_and_after_hears_the_same(scripted, follow, after):
    async def scenario(tail):
        before = Listener(tail, scripted.id, after)
        scripted.append_deltas(5)
        during = Listener(tail, scripted.id, after)
        await during.hears(6)
        scripted.append_deltas(2)
        scripted.append_deltas(3)
        scripted.end()
        late = Listener(tail, scripted.id, after)

        for listener in (before, during, late):
            heard = await listener.end()
            assert [event.data for event in heard] == [event.data for event in scripted.events[after + 1 :]]

    follow(scenario)


def test_events_that_were_not_delivered_are_read_again(scripted, follow):
    async def scenario(tail):
        listener = Listener(tail, scripted.id)
        await listener.hears(1)
        scripted.append_deltas(3, published=False)
        scripted.append_deltas(1)
        await listener.hears(5)
        scripted.end()

        assert numbers(await listener.end()) == list(range(7))

    follow(scenario)


def test_events_that_were_delivered_twice_are_heard_once(scripted, follow):
    async def scenario(tail):
        listener = Listener(tail, scripted.id)
        await listener.hears(1)
        for follower in tail._followers[scripted.id]:
            follower.push(0, [event.data for event in scripted.events])
            follower.mark_stale()
        scripted.append_deltas(1)
        scripted.end()

        assert numbers(await listener.end()) == list(range(4))

    follow(scenario)


def test_who_was_there_before_the_job_reads_nothing_and_hears_all(scripted, follow, monkeypatch):
    async def never(self, job_id, after):
        raise AssertionError("there is nothing to look up")

    async def scenario(tail):
        follower = tail.subscribe(scripted.id)
        scripted.append_deltas(2)  # a worker may be quicker than the thread that began the job
        monkeypatch.setattr(Tail, "_history", never)
        follower.push_opening(scripted.events[:2])
        scripted.end()

        heard = [event async for group in tail.follow(scripted.id, follower=follower) for event in group]
        assert [event.data for event in heard] == [event.data for event in scripted.events]

    follow(scenario)


def test_who_subscribed_and_never_followed_is_not_left_behind(scripted, follow):
    async def scenario(tail):
        follower = tail.subscribe(scripted.id)
        events = tail.follow(scripted.id, follower=follower)
        tail.unsubscribe(scripted.id, follower)
        await events.aclose()

    follow(scenario)


def test_a_slow_follower_is_dropped_and_goes_on_from_its_last_number(scripted, follow, monkeypatch):
    monkeypatch.setattr(module, "MAX_QUEUE", 3)

    async def scenario(tail):
        slow = tail.follow(scripted.id)
        heard = await anext(slow)
        quick = Listener(tail, scripted.id)
        for _ in range(8):
            (said,) = scripted.append_deltas(1)
            await quick.hears(said.sequence)  # and so the slow one's queue has it too
        heard += [event async for group in slow for event in group]
        assert len(heard) < 10
        rest = Listener(tail, scripted.id, heard[-1].sequence)
        scripted.end()

        assert numbers([*heard, *await rest.end()]) == numbers(await quick.end()) == list(range(11))

    follow(scenario)


def test_what_came_while_a_client_was_busy_comes_together(scripted, follow):
    async def scenario(tail):
        slow = tail.follow(scripted.id)
        assert numbers(await anext(slow)) == [0, 1]
        quick = Listener(tail, scripted.id)
        for count in (1, 2, 1):
            await quick.hears(scripted.append_deltas(count)[-1].sequence)  # and so the slow one's queue has it too
        assert numbers(await anext(slow)) == [2, 3, 4, 5]
        scripted.end()
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
        ([(1, [b'{"type":"sangha:journal.rewound"}', b"new"]), (3, [b"newer"])], [1, 2, 3]),
    ],
)
def test_appends_are_joined_where_nothing_is_missing(appends, expected):
    lines = [(first, [data if data[:1] == b"{" else b'{"type":"t"}' for data in given]) for first, given in appends]

    events = module.merge_appends(lines, 2)

    assert (numbers(events) if events is not None else None) == expected


def test_a_job_that_ended_without_redis_being_told_ends_its_streams(scripted, follow, monkeypatch):
    monkeypatch.setattr(module, "CHECK_INTERVAL", 0.05)

    async def scenario(tail):
        listener = Listener(tail, scripted.id)
        scripted.append_deltas(2)
        await listener.hears(3)
        scripted.end(published=False)

        assert numbers(await listener.end()) == list(range(5))

    follow(scenario)


def test_what_redis_has_forgotten_the_archive_tells_for_ever(scripted, follow):
    scripted.append_deltas(3)
    scripted.end()
    scripted.forget_journal()

    async def scenario(tail):
        for after in (-1, 2, 4, -1):
            assert numbers(await Listener(tail, scripted.id, after).end()) == list(range(after + 1, 6))

    follow(scenario)


def test_the_archive_tells_the_beginning_and_redis_the_rest(scripted, follow):
    scripted.append_deltas(3)
    scripted.checkpoint()
    scripted.forget_journal()
    scripted.append_deltas(2)

    async def scenario(tail):
        listener = Listener(tail, scripted.id)
        await listener.hears(6)
        scripted.end()
        assert numbers(await listener.end()) == list(range(8))

    follow(scenario)


def test_a_rewind_takes_those_back_who_heard_more(scripted, follow):
    async def scenario(tail):
        listener = Listener(tail, scripted.id)
        scripted.append_deltas(5)
        await listener.hears(6)
        scripted.rewind(2)

        await asyncio.wait_for(_hears_type(listener, b"sangha:journal.rewound"), 10)
        assert numbers(listener.heard) == [*range(7), 2]
        listener.task.cancel()
        await asyncio.wait([listener.task])

    follow(scenario)


async def _hears_type(listener, type_):
    async with listener.changed:
        await listener.changed.wait_for(lambda: type_ in [event.type for event in listener.heard])


@pytest.mark.parametrize("beyond", [0, 5])
def test_who_has_heard_all_of_an_ended_job_gets_an_end_at_once(scripted, follow, beyond):
    scripted.end()

    async def scenario(tail):
        assert await asyncio.wait_for(Listener(tail, scripted.id, 2 + beyond).end(), 1) == []

    follow(scenario)


def test_a_deleted_job_ends_its_streams(scripted, follow, monkeypatch):
    monkeypatch.setattr(module, "CHECK_INTERVAL", 0.05)

    async def scenario(tail):
        listener = Listener(tail, scripted.id)
        await listener.hears(1)
        with scripted.database.connection() as connection:
            connection.execute("DELETE FROM jobs WHERE id = %s", (scripted.id,))
        scripted.forget_journal()

        assert numbers(await listener.end()) == [0, 1]

    follow(scenario)


def test_a_process_that_leaves_ends_its_streams(scripted, follow):
    async def scenario(tail):
        listener = Listener(tail, scripted.id)
        await listener.hears(1)
        tail.close_followers()
        assert numbers(await listener.end()) == [0, 1]

    follow(scenario)


def test_redis_goes_and_comes_back(tmp_path, database, account):
    for name in ("run", "logs"):
        (tmp_path / name).mkdir()
    part = Valkey(tmp_path / "valkey", tmp_path / "run")

    with running_server(part, tmp_path / "run", tmp_path / "logs") as child, connect(part.url) as client:
        scripted = ScriptedJob(database, client, account)

        async def scenario():
            async with tailing(part.url, database) as tail:
                listener = Listener(tail, scripted.id)
                scripted.append_deltas(2)
                await listener.hears(3)
                await asyncio.to_thread(child.kill)
                away = Listener(tail, scripted.id)
                await away.hears(1)  # the archive has that much
                await asyncio.to_thread(_restart, child)
                scripted.append_deltas(2)
                await listener.hears(5)
                await away.hears(5)
                scripted.end()
                assert numbers(await listener.end()) == numbers(await away.end()) == list(range(7))

        asyncio.run(scenario())


def test_ended_jobs_are_told_while_redis_is_away(scripted, database, tmp_path):
    scripted.append_deltas(2)
    scripted.end()

    async def scenario():
        async with tailing(f"unix://{tmp_path}/nobody.sock", database) as tail:
            assert numbers(await Listener(tail, scripted.id).end()) == list(range(5))

    asyncio.run(scenario())


def _restart(child):
    child.start()
    child.wait_ready()

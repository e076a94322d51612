"""Following jobs: followers get the whole journal once, although deliveries are late, lost or repeated."""

import asyncio
import contextlib

import pytest

from models.platform.redis_client import connect
from ops.embedded_servers import Valkey, running_server
from tests.web.scripted_job import ScriptedJob, numbers
from web.streams import tail as module
from web.streams.tail import Tail


class Recorder:
    """Follows a job on the event loop and records its events."""

    def __init__(self, tail, job_id, after=-1):
        self.events = []
        self.changed = asyncio.Condition()
        self.task = asyncio.create_task(self._record(tail.follow(job_id, after)))

    async def _record(self, batches):
        async for batch in batches:
            async with self.changed:
                self.events += batch
                self.changed.notify_all()

    async def wait_for(self, last):
        async with self.changed:
            await self.changed.wait_for(lambda: self.events and self.events[-1].sequence >= last)

    async def all_events(self):
        await self.task
        return self.events


@contextlib.asynccontextmanager
async def running_tail(url, database):
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
    """`follow(scenario)`: run a scenario with a tail on the session's servers."""

    def run(scenario):
        async def run_with_tail():
            async with running_tail(valkey.url, database) as tail:
                await scenario(tail)
            assert not tail._followers, "a follower was not unsubscribed"

        asyncio.run(run_with_tail())

    return run


@pytest.mark.parametrize("after", [-1, 0, 3])
def test_followers_from_before_during_and_after_get_the_same_events(scripted, follow, after):
    async def scenario(tail):
        before = Recorder(tail, scripted.id, after)
        scripted.append_deltas(5)
        during = Recorder(tail, scripted.id, after)
        await during.wait_for(6)
        scripted.append_deltas(2)
        scripted.append_deltas(3)
        scripted.end()
        late = Recorder(tail, scripted.id, after)

        for recorder in (before, during, late):
            events = await recorder.all_events()
            assert [event.data for event in events] == [event.data for event in scripted.events[after + 1 :]]

    follow(scenario)


def test_undelivered_events_are_read_from_the_history(scripted, follow):
    async def scenario(tail):
        recorder = Recorder(tail, scripted.id)
        await recorder.wait_for(1)
        scripted.append_deltas(3, published=False)
        scripted.append_deltas(1)
        await recorder.wait_for(5)
        scripted.end()

        assert numbers(await recorder.all_events()) == list(range(7))

    follow(scenario)


def test_events_delivered_twice_are_yielded_once(scripted, follow):
    async def scenario(tail):
        recorder = Recorder(tail, scripted.id)
        await recorder.wait_for(1)
        for follower in tail._followers[scripted.id]:
            follower.push(0, [event.data for event in scripted.events])
            follower.mark_stale()
        scripted.append_deltas(1)
        scripted.end()

        assert numbers(await recorder.all_events()) == list(range(4))

    follow(scenario)


def test_a_follower_with_the_opening_events_does_not_read_the_history(scripted, follow, monkeypatch):
    async def never(self, job_id, after):
        raise AssertionError("the history must not be read")

    async def scenario(tail):
        follower = tail.subscribe(scripted.id)
        scripted.append_deltas(2)  # a worker may be faster than the thread that created the job
        monkeypatch.setattr(Tail, "_history", never)
        follower.push_opening(scripted.events[:2])
        scripted.end()

        events = [event async for batch in tail.follow(scripted.id, follower=follower) for event in batch]
        assert [event.data for event in events] == [event.data for event in scripted.events]

    follow(scenario)


def test_a_follower_can_unsubscribe_without_following(scripted, follow):
    async def scenario(tail):
        follower = tail.subscribe(scripted.id)
        events = tail.follow(scripted.id, follower=follower)
        tail.unsubscribe(scripted.id, follower)
        await events.aclose()

    follow(scenario)


def test_a_slow_follower_is_closed_and_resumes_from_its_last_number(scripted, follow, monkeypatch):
    monkeypatch.setattr(module, "MAX_QUEUE", 3)

    async def scenario(tail):
        slow = tail.follow(scripted.id)
        events = await anext(slow)
        quick = Recorder(tail, scripted.id)
        for _ in range(8):
            (delta,) = scripted.append_deltas(1)
            await quick.wait_for(delta.sequence)  # then the slow follower's queue has it too
        events += [event async for batch in slow for event in batch]
        assert len(events) < 10
        rest = Recorder(tail, scripted.id, events[-1].sequence)
        scripted.end()

        assert numbers([*events, *await rest.all_events()]) == numbers(await quick.all_events()) == list(range(11))

    follow(scenario)


def test_appends_that_queue_up_are_yielded_in_one_batch(scripted, follow):
    async def scenario(tail):
        slow = tail.follow(scripted.id)
        assert numbers(await anext(slow)) == [0, 1]
        quick = Recorder(tail, scripted.id)
        for count in (1, 2, 1):
            await quick.wait_for(
                scripted.append_deltas(count)[-1].sequence
            )  # then the slow follower's queue has it too
        assert numbers(await anext(slow)) == [2, 3, 4, 5]
        scripted.end()
        assert numbers([event async for batch in slow for event in batch]) == [6]
        await quick.all_events()

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
def test_appends_are_merged_unless_one_is_missing(appends, expected):
    lines = [(first, [data if data[:1] == b"{" else b'{"type":"t"}' for data in texts]) for first, texts in appends]

    events = module.merge_appends(lines, 2)

    assert (numbers(events) if events is not None else None) == expected


def test_a_job_that_ended_without_an_event_in_redis_ends_its_streams(scripted, follow, monkeypatch):
    monkeypatch.setattr(module, "CHECK_INTERVAL", 0.05)

    async def scenario(tail):
        recorder = Recorder(tail, scripted.id)
        scripted.append_deltas(2)
        await recorder.wait_for(3)
        scripted.end(published=False)

        assert numbers(await recorder.all_events()) == list(range(5))

    follow(scenario)


def test_events_that_redis_has_lost_are_read_from_the_archive(scripted, follow):
    scripted.append_deltas(3)
    scripted.end()
    scripted.forget_journal()

    async def scenario(tail):
        for after in (-1, 2, 4, -1):
            assert numbers(await Recorder(tail, scripted.id, after).all_events()) == list(range(after + 1, 6))

    follow(scenario)


def test_a_history_combines_the_archive_and_redis(scripted, follow):
    scripted.append_deltas(3)
    scripted.checkpoint()
    scripted.forget_journal()
    scripted.append_deltas(2)

    async def scenario(tail):
        recorder = Recorder(tail, scripted.id)
        await recorder.wait_for(6)
        scripted.end()
        assert numbers(await recorder.all_events()) == list(range(8))

    follow(scenario)


def test_a_rewind_is_yielded_to_followers_beyond_it(scripted, follow):
    async def scenario(tail):
        recorder = Recorder(tail, scripted.id)
        scripted.append_deltas(5)
        await recorder.wait_for(6)
        scripted.rewind(2)

        await asyncio.wait_for(_wait_for_type(recorder, b"sangha:journal.rewound"), 10)
        assert numbers(recorder.events) == [*range(7), 2]
        recorder.task.cancel()
        await asyncio.wait([recorder.task])

    follow(scenario)


async def _wait_for_type(recorder, type_):
    async with recorder.changed:
        await recorder.changed.wait_for(lambda: type_ in [event.type for event in recorder.events])


@pytest.mark.parametrize("beyond", [0, 5])
def test_following_an_ended_job_from_its_end_ends_at_once(scripted, follow, beyond):
    scripted.end()

    async def scenario(tail):
        assert await asyncio.wait_for(Recorder(tail, scripted.id, 2 + beyond).all_events(), 1) == []

    follow(scenario)


def test_a_deleted_job_ends_its_streams(scripted, follow, monkeypatch):
    monkeypatch.setattr(module, "CHECK_INTERVAL", 0.05)

    async def scenario(tail):
        recorder = Recorder(tail, scripted.id)
        await recorder.wait_for(1)
        with scripted.database.connection() as connection:
            connection.execute("DELETE FROM jobs WHERE id = %s", (scripted.id,))
        scripted.forget_journal()

        assert numbers(await recorder.all_events()) == [0, 1]

    follow(scenario)


def test_a_shutdown_ends_all_followers(scripted, follow):
    async def scenario(tail):
        recorder = Recorder(tail, scripted.id)
        await recorder.wait_for(1)
        tail.close_followers()
        assert numbers(await recorder.all_events()) == [0, 1]

    follow(scenario)


def test_followers_survive_a_restart_of_redis(tmp_path, database, account):
    for name in ("run", "logs"):
        (tmp_path / name).mkdir()
    server = Valkey(tmp_path / "valkey", tmp_path / "run")

    with running_server(server, tmp_path / "run", tmp_path / "logs") as child, connect(server.url) as client:
        scripted = ScriptedJob(database, client, account)

        async def scenario():
            async with running_tail(server.url, database) as tail:
                recorder = Recorder(tail, scripted.id)
                scripted.append_deltas(2)
                await recorder.wait_for(3)
                await asyncio.to_thread(child.kill)
                during_outage = Recorder(tail, scripted.id)
                await during_outage.wait_for(1)  # the archive has the opening events
                await asyncio.to_thread(_restart, child)
                scripted.append_deltas(2)
                await recorder.wait_for(5)
                await during_outage.wait_for(5)
                scripted.end()
                assert (
                    numbers(await recorder.all_events()) == numbers(await during_outage.all_events()) == list(range(7))
                )

        asyncio.run(scenario())


def test_ended_jobs_can_be_followed_while_redis_is_away(scripted, database, tmp_path):
    scripted.append_deltas(2)
    scripted.end()

    async def scenario():
        async with running_tail(f"unix://{tmp_path}/nobody.sock", database) as tail:
            assert numbers(await Recorder(tail, scripted.id).all_events()) == list(range(5))

    asyncio.run(scenario())


def _restart(child):
    child.start()
    child.wait_ready()

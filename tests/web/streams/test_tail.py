"""Following jobs: followers get the whole journal once, although deliveries are late, lost or repeated."""

import asyncio
import contextlib

import pytest

from models.jobs.cancellation import cancel
from models.journal.keys import hash_key, stream_key
from models.journal.pages import PAGE_BYTES
from models.journal.shards import Appended, shard_keys
from models.platform.redis_client import connect
from ops.embedded_servers import Valkey, running_server
from tests.counted import counted
from tests.web.scripted_job import ScriptedJob, forget_rewind, numbers
from web.streams import follower as followers
from web.streams import shard_reader, unsent
from web.streams import tail as module
from web.streams.history import History
from web.streams.tail import Tail


async def wait_until_queued(database, job_id):
    while True:
        with database.connection() as connection:
            if connection.execute("SELECT state FROM jobs WHERE id = %s", (job_id,)).fetchone()["state"] == "queued":
                return
        await asyncio.sleep(0.02)


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

    async def wait_for_type(self, type_):
        async with self.changed:
            await self.changed.wait_for(lambda: type_ in [event.type for event in self.events])

    async def all_events(self):
        await self.task
        return self.events


@contextlib.asynccontextmanager
async def running_tail(url, database):
    tail = Tail(url, database)
    await tail.start()
    try:
        async with asyncio.timeout(60):
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


def test_entries_of_jobs_that_nobody_follows_are_not_counted(follow):
    async def scenario(tail):
        follower = tail.subscribe("job_followed")
        fields = {b"s": b"0", b"e": b""}
        assert tail._dispatch({**fields, b"j": hash_key("job_followed", tagged=True).encode()})
        assert not tail._dispatch({**fields, b"j": hash_key("job_other", tagged=True).encode()})
        tail.unsubscribe("job_followed", follower)

    follow(scenario)


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


def test_the_time_of_deliveries_is_counted(scripted, follow):
    deliveries = counted("sangha_stream_delivery_seconds_count")
    seconds = counted("sangha_stream_delivery_seconds_sum")

    async def scenario(tail):
        # Given a follower that has read the history
        recorder = Recorder(tail, scripted.id)
        await recorder.wait_for(1)
        # When an event is appended
        scripted.append_deltas(1)
        await recorder.wait_for(2)
        await asyncio.sleep(0)
        # Then what it got was counted
        assert deliveries() >= 1
        assert 0 <= seconds() < 30
        scripted.end()
        await recorder.all_events()

    follow(scenario)


def test_a_job_that_ended_below_what_a_follower_has_is_continued(scripted, follow, database, account):
    """A failover has lost the claim, and a cancel has ended the job as if no attempt had run."""

    async def scenario(tail):
        # Given a follower of an attempt whose claim is lost, and a cancel of the job
        recorder = Recorder(tail, scripted.id)
        scripted.append_deltas(5)
        await recorder.wait_for(6)
        with database.transaction() as connection:
            connection.execute(
                "UPDATE jobs SET state = 'queued', attempt = 0, claim_id = NULL WHERE id = %s", (scripted.id,)
            )
            cancel(connection, scripted.id, account)
        # When the follower learns that the job has ended
        await wait_until_queued(database, scripted.id)
        # Then the next attempt ends it above what the follower has
        scripted.claim_again()
        scripted.append_deltas(1)
        scripted.end()
        assert numbers(await recorder.all_events()) == list(range(9))

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
            follower.push(Appended(0, [event.data for event in scripted.events]))
            follower.mark_stale()
        scripted.append_deltas(1)
        scripted.end()

        assert numbers(await recorder.all_events()) == list(range(4))

    follow(scenario)


def test_a_follower_with_the_opening_events_does_not_read_the_history(scripted, follow, monkeypatch):
    async def never(self, job_id, after, held):
        raise AssertionError("the history must not be read")

    async def scenario(tail):
        follower = tail.subscribe(scripted.id)
        scripted.append_deltas(2)  # a worker may be faster than the thread that created the job
        monkeypatch.setattr(History, "page", never)
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


@pytest.mark.parametrize("limit", ["MAX_QUEUE", "MAX_QUEUED_BYTES"])
def test_a_slow_follower_drops_its_queue_and_reads_the_history(scripted, follow, monkeypatch, limit):
    monkeypatch.setattr(followers, limit, 3)

    async def scenario(tail):
        # Given a follower that has taken the first events
        slow = tail.follow(scripted.id)
        events = await anext(slow)
        (follower,) = tail._followers[scripted.id]
        quick = Recorder(tail, scripted.id)
        # When more arrive than it may queue, with a rewind among them
        for _ in range(4):
            (delta,) = scripted.append_deltas(1)
            await quick.wait_for(delta.sequence)
        scripted.rewind(4)
        await quick.wait_for_type(b"sangha:journal.rewound")
        # Then it holds none of them
        assert follower.queue == []
        for _ in range(4):
            (delta,) = scripted.append_deltas(1)
            await quick.wait_for(delta.sequence)
        scripted.end()
        assert follower.queue == []
        # And when it goes on, then it gets what the journal has
        events += [event async for batch in slow for event in batch]
        assert [event.data for event in events] == [event.data for event in scripted.events]
        await quick.all_events()

    follow(scenario)


def test_a_history_is_read_by_pages_of_bounded_bytes(scripted, follow, redis_client):
    """Given a journal of 6 MB, partly only in the archive, when it is followed, then no batch is much larger than a
    page, and together they are the journal.
    """
    for number in range(60):
        scripted.append_large()
        if number % 20 == 10:
            scripted.checkpoint()
    scripted.end()
    redis_client.xtrim(stream_key(scripted.id), minid="35-0", approximate=False)
    batches = []

    async def scenario(tail):
        async for batch in tail.follow(scripted.id, owner="acct"):
            batches.append(batch)
            assert 0 < tail._unsent.total < PAGE_BYTES + 100_000
        assert tail._unsent.total == 0

    follow(scenario)
    assert [event.data for batch in batches for event in batch] == [event.data for event in scripted.events]
    assert max(sum(len(event.data) for event in batch) for batch in batches) < 150_000


def test_streams_of_an_account_wait_while_it_holds_its_limit(scripted, follow, monkeypatch, database, redis_client):
    """Given an account whose unread stream holds all that it may, when it opens another one, then that one gets its
    history as soon as the first one is closed. Other accounts do not wait.
    """
    monkeypatch.setattr(unsent, "ACCOUNT_BYTES", 100)
    scripted.append_large()
    scripted.end()

    async def scenario(tail):
        unread = tail.follow(scripted.id, owner="acct")
        await anext(unread)
        other = tail.follow(scripted.id, owner="acct_other")
        assert numbers(await anext(other)) == [0, 1, 2]
        second = asyncio.create_task(anext(tail.follow(scripted.id, owner="acct")))
        assert not (await asyncio.wait([second], timeout=0.1))[0]
        await unread.aclose()
        assert numbers(await second) == [0, 1, 2]
        await other.aclose()

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


REWOUND = b'{"type":"sangha:journal.rewound"}'


@pytest.mark.parametrize(
    ("appends", "expected", "resume"),
    [
        ([(3, [b"three"]), (4, [b"four", b"five"])], [3, 4, 5], None),
        ([(0, [b"old"]), (2, [b"old", b"three"]), (3, [b"three"])], [3], None),
        ([(0, [b"old"])], [], None),
        ([(4, [b"four"])], [], 2),
        ([(3, [b"three"]), (5, [b"five"])], [3], 3),
        ([(3, [])], [], 2),
        ([(1, [REWOUND, b"new"]), (3, [b"newer"])], [1, 2, 3], None),
        ([(1, [REWOUND]), (2, [])], [1], 1),
        ([(3, []), (1, [REWOUND])], [], 0),
        ([(5, [b"five"]), (1, [REWOUND, b"new"])], [], 0),
        ([(0, [], 1)], [], 0),
    ],
)
def test_appends_are_merged_up_to_a_missing_one(appends, expected, resume):
    """A rewind among or after missing events moves the position back all the same."""
    # Given appends as they arrived
    with_types = [
        Appended(first, [line if line[:1] == b"{" else b'{"type":"t"}' for line in lines], *rewound)
        for first, lines, *rewound in appends
    ]
    # When a follower that has yielded the events up to 2 takes them
    merged = followers.merge_appends(with_types, 2)
    # Then it yields the new ones, and continues after the right number
    assert (numbers(merged.events), merged.resume) == (expected, resume)


def test_a_rewind_before_an_append_that_is_too_large_for_the_shard_is_yielded(scripted, follow):
    async def scenario(tail):
        # Given a follower with events beyond a rewind
        slow = tail.follow(scripted.id)
        assert numbers(await anext(slow)) == [0, 1]
        scripted.append_deltas(5)
        assert numbers(await anext(slow)) == [2, 3, 4, 5, 6]
        # When the rewind and a large append arrive together
        quick = Recorder(tail, scripted.id)
        await quick.wait_for(6)
        scripted.rewind(3)
        scripted.append_large()
        await quick.wait_for_type(b"response.large")
        # Then the rewind is yielded, and the events after it
        assert numbers(await anext(slow)) == [3]
        assert numbers(await anext(slow)) == [4]
        scripted.end()
        assert numbers([event async for batch in slow for event in batch]) == [5]
        await quick.all_events()

    follow(scenario)


def test_a_rewind_that_was_not_delivered_is_yielded_after_the_connection_was_lost(scripted, follow, redis_client):
    async def scenario(tail):
        # Given a follower beyond a rewind that was not delivered to it
        recorder = Recorder(tail, scripted.id)
        scripted.append_deltas(5)
        await recorder.wait_for(6)
        scripted.rewind(3, published=False)
        scripted.append_deltas(5, published=False)
        # When the stream reader reconnects
        redis_client.client_kill_filter(_type="normal", skipme=True)
        await recorder.wait_for(8)
        # Then the follower is moved back to the rewind, once
        assert numbers(recorder.events) == [*range(7), *range(3, 9)]
        redis_client.client_kill_filter(_type="normal", skipme=True)
        scripted.end()
        assert numbers(await recorder.all_events()) == [*range(7), *range(3, 10)]

    follow(scenario)


def test_entries_with_lower_ids_than_the_last_one_are_delivered(scripted, follow, redis_client, monkeypatch):
    """A replica that lacks the last entries was promoted, and its clock is behind."""
    monkeypatch.setattr(shard_reader, "CURSOR_CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(shard_reader, "BLOCK", 20)

    async def scenario(tail):
        # Given a reader whose cursors are an hour ahead
        recorder = Recorder(tail, scripted.id)
        scripted.append_deltas(1)
        await recorder.wait_for(2)
        seconds, _ = redis_client.time()
        for shard in shard_keys():
            redis_client.xadd(shard, {"j": "sangha:journal:other", "s": 0, "e": ""}, f"{(seconds + 3600) * 1000}-0")
        scripted.append_deltas(1)
        await recorder.wait_for(3)
        # When the entries with these ids are gone
        redis_client.delete(*shard_keys())
        # Then those after them are delivered
        scripted.append_deltas(1)
        await recorder.wait_for(4)
        scripted.end()
        assert numbers(await recorder.all_events()) == list(range(6))

    follow(scenario)


@pytest.mark.parametrize("lost", ["shards", "stream", "both"])
def test_events_that_were_never_delivered_are_read_from_the_archive(scripted, follow, redis_client, monkeypatch, lost):
    """The last entry before a silence was evicted with its shard, or Redis had no memory left for it."""
    monkeypatch.setattr(module, "CHECK_INTERVAL", 0.05)

    async def scenario(tail):
        # Given a follower that has missed the last append
        recorder = Recorder(tail, scripted.id)
        await recorder.wait_for(1)
        scripted.append_deltas(3, published=False)
        if lost != "shards":
            redis_client.delete(stream_key(scripted.id))
        if lost != "stream":
            redis_client.delete(*shard_keys())
        # When it is archived by a checkpoint
        scripted.checkpoint()
        # Then the follower gets it
        await recorder.wait_for(4)
        scripted.end()
        assert numbers(await recorder.all_events()) == list(range(6))

    follow(scenario)


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


def test_a_history_that_could_not_be_read_is_read_again(scripted, follow, monkeypatch):
    """Only this connection was lost, so the stream reader does not notice."""
    monkeypatch.setattr(module, "CHECK_INTERVAL", 0.05)

    async def scenario(tail):
        # Given events that only Redis has, and a connection that fails once
        scripted.append_deltas(3)
        entries, failures = tail._history._entries, iter([True])

        async def failing(*arguments, **options):
            if next(failures, False):
                raise AttributeError
            return await entries(*arguments, **options)

        monkeypatch.setattr(tail._history, "_entries", failing)
        # When a follower begins
        recorder = Recorder(tail, scripted.id)
        # Then it gets all of them, without a further event
        await recorder.wait_for(4)
        scripted.end()
        assert numbers(await recorder.all_events()) == list(range(6))

    follow(scenario)


def test_a_rewind_is_yielded_to_followers_beyond_it(scripted, follow):
    async def scenario(tail):
        recorder = Recorder(tail, scripted.id)
        scripted.append_deltas(5)
        await recorder.wait_for(6)
        scripted.rewind(2)

        await asyncio.wait_for(recorder.wait_for_type(b"sangha:journal.rewound"), 10)
        assert numbers(recorder.events) == [*range(7), 2]
        recorder.task.cancel()
        await asyncio.wait([recorder.task])

    follow(scenario)


def test_a_follower_beyond_a_rewind_that_only_redis_knows_begins_with_it(scripted, follow, database):
    # Given a running job that was rewound, whose row's note of it was lost by a failover
    scripted.append_deltas(4)
    scripted.rewind(2)
    scripted.append_deltas(5)
    forget_rewind(database, scripted)

    async def scenario(tail):
        # When a client with events from before the rewind follows
        recorder = Recorder(tail, scripted.id, 5)
        await recorder.wait_for(1)

        # Then it is told
        assert recorder.events[0].type == b"sangha:journal.rewound"
        scripted.end()
        assert numbers(await recorder.all_events()) == [2, 3, 4, 5, 6, 7, 8]

    follow(scenario)


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
                client.waitaof(1, 0, 10_000)  # a write may be postponed while the disk is busy
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

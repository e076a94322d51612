"""Streams of journals that have large fields once: clients receive whole events, whatever the stream begins with."""

import asyncio
import logging

import pytest

from models.journal.keys import stream_key
from models.journal.pages import PAGE_BYTES
from models.platform.errors import Unavailable
from tests.web.scripted_job import ScriptedJob, numbers
from web.streams.tail import Tail

INSTRUCTIONS = "Answer in rhymes. " * 100


@pytest.fixture
def scripted(database, redis_client, account):
    return ScriptedJob(database, redis_client, account, INSTRUCTIONS)


@pytest.fixture
def with_tail(valkey, database):
    """`with_tail(scenario)`: run a scenario with a tail on the session's servers."""

    def run(scenario):
        async def run_with_tail():
            tail = Tail(valkey.url, database)
            await tail.start()
            try:
                async with asyncio.timeout(20):
                    return await scenario(tail)
            finally:
                await tail.stop()

        return asyncio.run(run_with_tail())

    return run


async def collect(tail, job_id, after=-1, follower=None):
    return [event async for batch in tail.follow(job_id, after, follower) for event in batch]


def evict_first(redis_client, job_id):
    redis_client.xtrim(stream_key(job_id), minid="3-0", approximate=False)


def evict_stream(redis_client, job_id):
    redis_client.delete(stream_key(job_id))


def evict_nothing(redis_client, job_id):
    pass


@pytest.mark.parametrize("evict", [evict_nothing, evict_first, evict_stream])
def test_a_stream_from_any_event_on_has_whole_events(scripted, with_tail, redis_client, evict):
    # Given an ended job, of whose events Redis has lost none, the first ones or all
    scripted.append_deltas(2)
    scripted.end()
    evict(redis_client, scripted.id)
    whole = scripted.clients_events()
    assert whole[-1].data.count(b"rhymes") == whole[1].data.count(b"rhymes") == 100
    assert scripted.events[-1].data.count(b"rhymes") == 0

    for after in range(-1, len(whole) - 1):
        events = with_tail(lambda tail, after=after: collect(tail, scripted.id, after))

        assert [event.data for event in events] == [event.data for event in whole[after + 1 :]]


def test_events_that_arrive_later_are_completed_too(scripted, with_tail):
    async def scenario(tail):
        # Given streams that had events from the beginning on, and none yet
        follower = tail.subscribe(scripted.id)
        follower.push_opening(scripted.events)
        opened = asyncio.create_task(collect(tail, scripted.id, follower=follower))
        resumed = asyncio.create_task(collect(tail, scripted.id, 1))
        # When the job ends
        scripted.append_deltas()
        await asyncio.to_thread(scripted.end)
        # Then both get its whole last event
        return await opened, await resumed

    opened, resumed = with_tail(scenario)
    whole = scripted.clients_events()
    assert [event.data for event in opened] == [event.data for event in whole]
    assert [event.data for event in resumed] == [event.data for event in whole[2:]]


def test_events_after_a_rewind_are_completed(scripted, with_tail):
    scripted.append_deltas(3)
    scripted.rewind(2)
    scripted.end()

    events = with_tail(lambda tail: collect(tail, scripted.id, 1))

    assert [event.data for event in events] == [event.data for event in scripted.clients_events()[2:]]


def test_a_stream_ends_before_an_event_that_it_cannot_complete(scripted, with_tail, redis_client, database, caplog):
    # Given a journal without its first event in Redis
    caplog.set_level(logging.WARNING)
    scripted.append_deltas()
    evict_first(redis_client, scripted.id)

    async def scenario(tail):
        stream = tail.follow(scripted.id, 1)
        assert numbers(await anext(stream)) == [2]
        # When Postgres is away at the end
        tail._history._first_archived = unavailable
        await asyncio.to_thread(scripted.end)
        # Then the stream ends early, for its client to resume it
        assert [event async for batch in stream for event in batch] == []

    with_tail(scenario)
    assert "Ending a stream" in caplog.text


def unavailable(job_id):
    raise Unavailable(f"Postgres is away, and with it the events of {job_id}")


def test_the_first_event_is_read_once_for_a_stream_and_only_where_fields_are_missing(
    scripted, with_tail, database, redis_client, account
):
    whole = ScriptedJob(database, redis_client, account)
    for job in (scripted, whole):
        job.append_deltas()
        job.end()
    reads = []

    async def scenario(tail):
        read = tail._history._entries

        async def entries(job_id, after, last="+", limit=PAGE_BYTES):
            reads.append((job_id, last))
            return await read(job_id, after, last, limit)

        tail._history._entries = entries
        await collect(tail, whole.id, 0)
        await collect(tail, scripted.id, 0)

    with_tail(scenario)
    assert reads == [(whole.id, "+"), (scripted.id, "+"), (scripted.id, "1-0")]

"""Following jobs on Redis Cluster, through Sentinel, and while the number of shards changes."""

import asyncio
import contextlib

import pytest
import redis

from bench.harness.waiting import wait_until
from models.journal import journal
from models.journal.events import event
from models.journal.keys import stream_key
from models.journal.shards import MAX_SHARDS, shard_key
from models.platform.redis_client import connect
from tests.redis_servers import running_cluster, running_sentinel
from tests.web.scripted_job import ScriptedJob, numbers
from tests.web.streams.test_tail import Recorder, running_tail


@pytest.fixture(scope="module")
def cluster_url(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("cluster")) as url:
        yield url


def test_jobs_on_all_nodes_of_a_cluster_are_followed(cluster_url, database, account):
    async def scenario(jobs):
        async with running_tail(cluster_url, database) as tail:
            # Given followers of jobs whose shards are on several nodes
            recorders = [Recorder(tail, job.id) for job in jobs]
            for recorder in recorders:
                await recorder.wait_for(1)
            # When their events are appended, one of them too large for its shard
            for job in jobs:
                job.append_deltas(3)
            jobs[0].append_large()
            for job in jobs:
                job.end()
            # Then each follower gets all of them
            for job, recorder in zip(jobs, recorders, strict=True):
                assert [event.data for event in await recorder.all_events()] == [event.data for event in job.events]

    with connect(cluster_url) as client:
        asyncio.run(scenario([ScriptedJob(database, client, account) for _ in range(8)]))


def test_events_of_a_cluster_are_delivered_by_the_shards(cluster_url, database, account, monkeypatch):
    async def scenario(job):
        async with running_tail(cluster_url, database) as tail:
            recorder = Recorder(tail, job.id)
            await recorder.wait_for(1)
            monkeypatch.setattr(tail._history, "page", _fail)
            job.append_deltas(3)
            await recorder.wait_for(4)
            job.end()
            assert numbers(await recorder.all_events()) == list(range(6))

    with connect(cluster_url) as client:
        asyncio.run(scenario(ScriptedJob(database, client, account)))


async def _fail(job_id, after, held):
    raise AssertionError("the history must not be read")


def test_followers_survive_the_failover_of_a_sentinel(tmp_path, database, account):
    async def scenario(url, primary, client):
        job = ScriptedJob(database, client, account)
        async with running_tail(url, database) as tail:
            # Given a follower, and a replica with the same events
            recorder = Recorder(tail, job.id)
            job.append_deltas(2)
            await recorder.wait_for(3)
            client.wait(1, 2000)
            # When the primary is killed and the replica promoted
            await asyncio.to_thread(primary.kill)
            await asyncio.to_thread(_wait_until_writable, client, job)
            # Then the follower gets the later events
            job.append_deltas(1)
            job.end()
            assert numbers(await recorder.all_events()) == list(range(6))

    with running_sentinel(tmp_path) as (url, primary), connect(url) as client:
        asyncio.run(scenario(url, primary, client))


def _wait_until_writable(client, job):
    def writable():
        with contextlib.suppress(redis.RedisError):
            return client.expire(stream_key(job.id), 1000)
        return False

    wait_until(writable)


def test_followers_miss_nothing_while_the_number_of_shards_changes(database, redis_client, valkey, account):
    """Workers with the old and the new setting run side by side."""

    async def scenario(job):
        async with running_tail(valkey.url, database) as tail:
            recorder = Recorder(tail, job.id)
            await recorder.wait_for(1)
            for shards in (4, MAX_SHARDS, 1, 7, 4, 2):
                next_event = event(len(job.events), "response.output_text.delta", {"delta": "w "}, 1)
                job.events.append(next_event)
                journal.append(redis_client, job._claim_of_attempt(), [next_event], shards=shards)
                await recorder.wait_for(next_event.sequence)
            job.end()
            assert [event.data for event in await recorder.all_events()] == [event.data for event in job.events]

    asyncio.run(scenario(ScriptedJob(database, redis_client, account)))


def test_jobs_are_spread_over_the_shards():
    assert len({shard_key(f"job {number}", 7) for number in range(200)}) == 7

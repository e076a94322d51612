"""Announcements publish jobs and write journals, and never fail the caller."""

from dataclasses import replace

import pytest

from bench.harness.waiting import wait_until
from models.access import rate_limits
from models.access.rate_limits import Bucket
from models.jobs.cancellation import cancel
from models.journal import journal
from models.journal.events import event
from models.platform.redis_client import connect
from models.platform.redis_memory import RedisMemory
from tasks.queue import Queue

OPENING_EVENTS = [event(0, "test.opened", {}), event(1, "test.opened", {})]


@pytest.fixture
def queue(settings, job_store, redis_client, broker):
    queue = Queue(settings, job_store.database, redis_client)
    yield queue
    queue.close()


def test_announced_job_is_published_and_its_journal_started(queue, job_store, account, redis_client):
    job_id = job_store.enqueue(account, opening=OPENING_EVENTS)

    queue.announce_job(job_id, OPENING_EVENTS, account)

    assert journal.read_events(redis_client, job_id) == OPENING_EVENTS
    wait_until(lambda: job_store.job(job_id).published_at)


def test_waiting_turns_with_large_requests_take_little_of_redis(queue, job_store, account, redis_client):
    """Given turns with 1.9 MB of instructions, when they are announced, then Redis gets a few hundred bytes of each."""
    opening = [event(0, "response.created", {"text": "x" * 1_900_000}), event(1, "response.queued", {})]
    before = redis_client.info("memory")["used_memory_dataset"]

    for _ in range(20):
        job_id = job_store.enqueue(account, opening=opening)
        queue.announce_job(job_id, opening, account)
        assert journal.last_sequence(redis_client, job_id) == 1

    assert redis_client.info("memory")["used_memory_dataset"] - before < 1_000_000


def test_opening_events_are_left_to_the_archive_while_redis_is_short_of_memory(queue, job_store, account, redis_client):
    job_id, later = (job_store.enqueue(account, opening=OPENING_EVENTS) for _ in range(2))
    limit = redis_client.config_get("maxmemory")["maxmemory"]
    try:
        redis_client.config_set("maxmemory", int(redis_client.info("memory")["used_memory"] * 1.2))
        queue.announce_job(job_id, OPENING_EVENTS, account)
    finally:
        redis_client.config_set("maxmemory", limit)

    assert journal.read_events(redis_client, job_id) == []
    assert journal.last_sequence(redis_client, job_id) == 1
    queue._memory = RedisMemory(redis_client)  # as a second later
    queue.announce_job(later, OPENING_EVENTS, account)
    assert journal.read_events(redis_client, later) == OPENING_EVENTS


def test_cancellation_ends_the_journal_of_a_queued_job(queue, job_store, account, redis_client):
    job_id = job_store.enqueue(account, opening=OPENING_EVENTS)
    queue.announce_job(job_id, OPENING_EVENTS, account)
    with job_store.database.transaction() as connection:
        cancellation = cancel(connection, job_id, account)

    queue.announce_cancellation(cancellation, account)

    events = journal.read_events(redis_client, job_id)
    assert [event.sequence for event in events] == [0, 1, 2]
    assert events[-1].ends


def test_cancellation_of_a_queued_turn_returns_its_tokens_per_minute(queue, job_store, account, redis_client):
    # Given a job for which most tokens of the minute were drawn
    bucket = Bucket(f"account {account}", "tokens", 1000, 900, group=account)
    rate_limits.draw(redis_client, [bucket])
    job_id = job_store.enqueue(account, arguments=rate_limits.token_draw_arguments(None, 1000, 900))
    # When it is cancelled before it runs, twice
    for _ in range(2):
        with job_store.database.transaction() as connection:
            cancellation = cancel(connection, job_id, account)
        queue.announce_cancellation(cancellation, account)
    # Then they are there again
    [level] = rate_limits.draw(redis_client, [replace(bucket, cost=1)]).levels
    assert level.remaining == 999


def test_journal_of_a_deleted_job_is_deleted(queue, job_store, account, redis_client):
    job_id = job_store.enqueue(account)
    queue.announce_job(job_id, OPENING_EVENTS, account)

    queue.forget_journal(job_id)

    assert journal.read_events(redis_client, job_id) == []


def test_announcements_succeed_while_redis_is_down(settings, job_store, account, broker, tmp_path):
    queue = Queue(settings, job_store.database, connect(f"unix://{tmp_path}/nothing.sock"))
    job_id = job_store.enqueue(account)

    queue.announce_job(job_id, OPENING_EVENTS, account)
    with job_store.database.transaction() as connection:
        queue.announce_cancellation(cancel(connection, job_id, account), account)
    queue.forget_journal(job_id)
    queue.check()

    queue.close()

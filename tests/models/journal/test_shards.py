"""Entries of shard streams are deleted by time and by job, and readers do not take that for a loss."""

import time

import pytest

from models.journal import shards
from models.journal.events import event
from models.journal.shards import announcement, shard_entry_job, shard_key
from models.platform.ids import new_id


@pytest.fixture
def client(redis_client):
    """A client of the session's Valkey, whose shards are empty before and after."""
    redis_client.delete(*shards.shard_keys())
    yield redis_client
    redis_client.delete(*shards.shard_keys())


def announce(client, job_id, text="what was said", at="*"):
    command = announcement(job_id, [event(0, "a.delta", {"delta": text})])
    client.execute_command(*[at if part == "*" else part for part in command])


def jobs_in(client):
    """Return the jobs of all entries of all shards."""
    return [shard_entry_job(fields) for key in shards.shard_keys() for _, fields in client.xrange(key)]


def old_id(client, seconds):
    """Return the id of an entry so many seconds ago by the clock of the server."""
    return f"{(int(client.time()[0]) - seconds) * 1000}-0"


def test_old_entries_are_deleted_and_recent_ones_kept(client):
    old, recent = new_id("job"), new_id("job")
    while shard_key(recent) != shard_key(old):
        recent = new_id("job")
    announce(client, old, at=old_id(client, 150))
    announce(client, recent, at=old_id(client, 60))

    assert shards.trim(client) == 1

    assert jobs_in(client) == [recent]


def test_the_newest_entry_keeps_its_place_without_its_text(client):
    # Given a shard whose newest entry is old
    job_id = new_id("job")
    announce(client, job_id, at=old_id(client, 150))
    before = client.xrevrange(shard_key(job_id), count=1)[0][0]

    # When it is trimmed again and again
    shards.trim(client)
    first = client.xrange(shard_key(job_id))
    client.xadd(shard_key(job_id), {"j": "", "s": 0, "e": ""})
    shards.trim(client, kept=0)
    shards.trim(client, kept=0)

    # Then the newest entry of the shard is never older than one that readers have seen, and has no text
    assert len(first) == 1
    assert first[0][0] > before
    assert jobs_in(client) == [""]
    assert b"what was said" not in b"".join(b"".join(fields.values()) for _, fields in first)


def test_empty_shards_stay_missing(client):
    assert shards.trim(client) == 0
    assert shards.delete_entries(client, ["job_x"]) == 0
    assert client.exists(*shards.shard_keys()) == 0


def test_the_entries_of_some_jobs_are_deleted(client):
    # Given many entries of many jobs
    kept, erased = [new_id("job") for _ in range(300)], [new_id("job") for _ in range(300)]
    for pair in zip(kept, erased, strict=True):
        for job_id in pair:
            announce(client, job_id)
    announce(client, erased[0])

    # When those of some jobs are deleted
    assert shards.delete_entries(client, erased) == 301

    # Then those of the others remain
    assert sorted(job_id for job_id in jobs_in(client) if job_id) == sorted(kept)


def test_a_full_shard_is_searched_quickly(client):
    job_ids = [new_id("job") for _ in range(shards.SHARD_LENGTH)]
    pipeline = client.pipeline(transaction=False)
    for job_id in job_ids:
        pipeline.execute_command(*announcement(job_id, [event(0, "a.delta", {"delta": "x" * 1000})], 1))
    pipeline.execute()

    began = time.perf_counter()
    deleted = shards.delete_entries(client, job_ids[:500])

    assert deleted == 500
    assert time.perf_counter() - began < 2

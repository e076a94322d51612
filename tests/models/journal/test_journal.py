"""Append to a journal in Redis, with fences and shard streams."""

import pytest

from models.journal import journal
from models.journal.events import event
from models.platform.ids import new_id


@pytest.fixture
def job_id(redis_client):
    id_ = new_id("job")
    yield id_
    journal.delete(redis_client, id_)


@pytest.fixture
def append(redis_client, job_id):
    """`append(attempt, first, last)` appends events like the writer. Returns the status and the last number."""

    def run(attempt, first, last, *, force=False, by=None):
        events = [event(n, "test.said", {"by": by or attempt}, 1) for n in range(first, last + 1)]
        command = journal.append_command(job_id, attempt, events, force=force)
        reply = journal.parse_append_reply(redis_client.eval(journal.APPEND, *command))
        return reply.status, reply.last

    return run


def read(redis_client, job_id, after=-1):
    return [event.sequence for event in journal.read_events(redis_client, job_id, after)]


def take(redis_client, job_id, attempt):
    """Take the fence, the first step of an attempt."""
    return journal.append(redis_client, job_id, attempt, [])


def test_events_are_appended_in_order_and_read_from_any_sequence_number(redis_client, job_id, append):
    take(redis_client, job_id, 1)

    assert append(1, 0, 2) == ("ok", 2)
    assert append(1, 3, 3) == ("ok", 3)

    assert read(redis_client, job_id) == [0, 1, 2, 3]
    assert read(redis_client, job_id, 1) == [2, 3]
    assert read(redis_client, job_id, 3) == read(redis_client, job_id, 9) == []
    assert journal.last_sequence(redis_client, job_id) == 3
    assert {found.tokens for found in journal.read_events(redis_client, job_id)} == {1}


def test_a_repeated_or_overlapping_append_changes_nothing(redis_client, job_id, append):
    """The reply to an append may be lost."""
    take(redis_client, job_id, 1)
    append(1, 0, 2)

    assert append(1, 0, 2, by="a repeat") == ("ok", 2)
    assert append(1, 1, 4, by="an overlap") == ("ok", 4)

    found = journal.read_events(redis_client, job_id)
    assert [found.sequence for found in found] == [0, 1, 2, 3, 4]
    assert [b"repeat" in f.data or b"overlap" in f.data for f in found] == [False, False, False, True, True]


def test_an_append_with_a_gap_is_lost(redis_client, job_id, append):
    take(redis_client, job_id, 1)
    append(1, 0, 2)

    assert append(1, 4, 5) == ("lost", 2)
    assert read(redis_client, job_id) == [0, 1, 2]


def test_a_superseded_attempt_is_fenced(redis_client, job_id, append):
    take(redis_client, job_id, 1)
    append(1, 0, 2)
    assert take(redis_client, job_id, 2).last == 2

    assert append(1, 3, 4) == ("fenced", 2)
    assert append(1, 3, 4, force=True) == ("fenced", 2)
    assert take(redis_client, job_id, 1).status == "fenced"
    assert append(2, 3, 3) == ("ok", 3)


def test_an_append_without_the_fence_is_lost(redis_client, job_id, append):
    assert append(1, 0, 1) == ("lost", -1)
    assert read(redis_client, job_id) == []


def test_an_evicted_journal_is_written_again_by_force(redis_client, job_id, append):
    take(redis_client, job_id, 3)
    append(3, 0, 5)
    journal.delete(redis_client, job_id)

    assert append(3, 6, 6) == ("lost", -1)
    assert append(3, 4, 6, force=True) == ("ok", 6)  # the events before 4 are archived
    assert read(redis_client, job_id) == [4, 5, 6]
    assert append(3, 7, 7) == ("ok", 7)


def test_a_stream_has_no_gap_inside(redis_client, job_id, append):
    """Redis was restored from an old copy, and the writer no longer has the events between."""
    take(redis_client, job_id, 1)
    append(1, 0, 3)

    assert append(1, 8, 9, force=True) == ("ok", 9)

    assert read(redis_client, job_id) == [8, 9]


def test_a_superseded_attempt_cannot_recreate_an_evicted_journal(redis_client, job_id, append):
    take(redis_client, job_id, 1)
    append(1, 0, 5)
    journal.delete(redis_client, job_id)
    take(redis_client, job_id, 2)

    assert append(1, 3, 6, force=True) == ("fenced", -1)
    assert read(redis_client, job_id) == []


def test_late_opening_events_of_a_web_process_are_fenced(redis_client, job_id, append):
    """The worker was faster and has read them from the archive."""
    take(redis_client, job_id, 1)
    append(1, 0, 3)

    assert append(0, 0, 1, force=True, by="a web process") == ("fenced", 3)


@pytest.fixture
def read_shards(redis_client, job_id):
    """`read_shards()` returns the job's entries in the shard streams since the start of the test."""
    cursors = {key: (redis_client.xrevrange(key, count=1) or [(b"0-0",)])[0][0] for key in journal.shard_keys()}

    def read():
        entries = [entry for _, found in redis_client.xread(cursors) for _, entry in found]
        return [
            journal.parse_shard_entry(fields) for fields in entries if fields[b"j"].decode() == journal.hash_key(job_id)
        ]

    return read


def test_appended_events_are_sent_to_the_shard_once(redis_client, job_id, append, read_shards):
    take(redis_client, job_id, 1)
    append(1, 0, 1)
    append(1, 0, 3)

    entries = read_shards()
    assert [(id_, first, len(lines)) for id_, first, lines in entries] == [(job_id, 0, 2), (job_id, 2, 2)]
    assert [line for _, _, lines in entries for line in lines] == [
        found.data for found in journal.read_events(redis_client, job_id)
    ]


def test_opening_events_are_not_sent_to_the_shard_but_an_ending_after_them_is(redis_client, job_id, read_shards):
    journal.append(redis_client, job_id, 0, [event(0, "test.said", {}), event(1, "test.said", {})])
    journal.append(redis_client, job_id, 0, [event(2, "sangha:job.cancelled", {})])

    assert [(first, len(lines)) for _, first, lines in read_shards()] == [(2, 1)]


def test_an_ending_without_opening_events_is_sent_to_the_shard(redis_client, job_id, read_shards):
    journal.append(redis_client, job_id, 0, [event(0, "sangha:job.cancelled", {})])

    assert [(first, len(lines)) for _, first, lines in read_shards()] == [(0, 1)]


def test_an_ended_journal_expires_sooner(redis_client, job_id):
    journal.append(redis_client, job_id, 1, [event(0, "test.said", {})])
    assert journal.TTL_ENDED < redis_client.ttl(journal.hash_key(job_id)) <= journal.TTL

    journal.append(redis_client, job_id, 1, [event(1, "sangha:job.completed", {})])

    for key in (journal.hash_key(job_id), journal.stream_key(job_id)):
        assert 0 < redis_client.ttl(key) <= journal.TTL_ENDED


def test_the_last_sequence_number_is_minus_one_while_redis_is_unavailable(tmp_path):
    from models.platform.redis_client import connect

    assert journal.last_sequence(connect(f"unix://{tmp_path}/nothing.sock"), "job") == -1


def test_events_of_an_earlier_version_are_read_under_their_present_name(redis_client, job_id):
    """A journal may be older than the process that reads it."""
    journal.append(redis_client, job_id, 1, [event(0, "sangha.job.completed", {})])

    entry = journal.parse_shard_entry(
        {b"j": journal.hash_key(job_id).encode(), b"s": b"0", b"e": event(0, "sangha.job.dead", {}).data}
    )

    assert [event.type for event in journal.read_events(redis_client, job_id)] == [b"sangha:job.completed"]
    assert entry == (job_id, 0, [event(0, "sangha:job.dead", {}).data])

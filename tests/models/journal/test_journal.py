"""Append to a journal in Redis, with fences and shard streams."""

from dataclasses import replace
from uuid import uuid4

import orjson
import pytest

from models.journal import journal
from models.journal.events import event
from models.journal.journal import Claim, Fence
from models.journal.keys import hash_key, stream_key
from models.journal.shards import MAX_ENTRY, announcement, parse_shard_entry, shard_entry_job, shard_keys
from models.platform.ids import new_id
from tests.models.journal import previous_version
from tests.models.journal.evictions import evict


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
        command = journal.append_command(Claim(job_id, attempt), events, Fence.TAKE if force else Fence.HELD)
        reply = journal.parse_append_reply(redis_client.eval(journal.APPEND, *command))
        return reply.status, reply.last

    return run


def read(redis_client, job_id, after=-1):
    return [event.sequence for event in journal.read_events(redis_client, job_id, after)]


def take(redis_client, job_id, attempt):
    """Take the fence, the first step of an attempt."""
    return journal.append(redis_client, Claim(job_id, attempt), [])


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


def test_the_first_rewind_is_known_until_the_journal_is_replaced(redis_client, job_id, append):
    def rewind(attempt, sequence, *, replace=False, before=()):
        rewound = event(sequence, "sangha:journal.rewound", {"job_id": job_id, "attempt": attempt})
        journal.append(redis_client, Claim(job_id, attempt), [*before, rewound], replace=replace)

    # Given a journal without a rewind
    take(redis_client, job_id, 1)
    append(1, 0, 2)
    assert journal.read_end(redis_client, job_id) == journal.JournalEnd(2)

    # When it is rewound twice, Then the first one is known
    rewind(2, 3)
    rewind(3, 4)
    assert journal.read_end(redis_client, job_id) == journal.JournalEnd(4, 3)

    # When it is replaced, Then the first one of the new events is
    rewind(4, 1, replace=True, before=[event(0, "test.said", {})])
    assert journal.read_end(redis_client, job_id) == journal.JournalEnd(1, 1)
    journal.append(redis_client, Claim(job_id, 5), [event(0, "test.said", {})], replace=True)
    assert journal.read_end(redis_client, job_id) == journal.JournalEnd(0)


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
    cursors = {key: (redis_client.xrevrange(key, count=1) or [(b"0-0",)])[0][0] for key in shard_keys()}

    def read():
        entries = [entry for _, found in redis_client.xread(cursors) for _, entry in found]
        return [parse_shard_entry(fields) for fields in entries if shard_entry_job(fields) == job_id]

    return read


def test_appended_events_are_sent_to_the_shard_once(redis_client, job_id, append, read_shards):
    take(redis_client, job_id, 1)
    append(1, 0, 1)
    append(1, 0, 3)

    entries = read_shards()
    assert [(entry.first, len(entry.lines)) for entry in entries] == [(0, 2), (2, 2)]
    assert [line for entry in entries for line in entry.lines] == [
        found.data for found in journal.read_events(redis_client, job_id)
    ]


def test_opening_events_are_not_sent_to_the_shard_but_an_ending_after_them_is(redis_client, job_id, read_shards):
    journal.append(redis_client, Claim(job_id), [event(0, "test.said", {}), event(1, "test.said", {})])
    journal.append(redis_client, Claim(job_id), [event(2, "sangha:job.cancelled", {})])

    assert [(entry.first, len(entry.lines)) for entry in read_shards()] == [(2, 1)]


def test_an_ending_without_opening_events_is_sent_to_the_shard(redis_client, job_id, read_shards):
    journal.append(redis_client, Claim(job_id), [event(0, "sangha:job.cancelled", {})])

    assert [(entry.first, len(entry.lines)) for entry in read_shards()] == [(0, 1)]


def test_an_ended_journal_expires_sooner(redis_client, job_id):
    journal.append(redis_client, Claim(job_id, 1), [event(0, "test.said", {})])
    assert journal.TTL_ENDED < redis_client.ttl(hash_key(job_id)) <= journal.TTL

    journal.append(redis_client, Claim(job_id, 1), [event(1, "sangha:job.completed", {})])

    for key in (hash_key(job_id), stream_key(job_id)):
        assert 0 < redis_client.ttl(key) <= journal.TTL_ENDED


def test_the_last_sequence_number_is_minus_one_while_redis_is_unavailable(tmp_path):
    from models.platform.redis_client import connect

    assert journal.last_sequence(connect(f"unix://{tmp_path}/nothing.sock"), "job") == -1


def test_events_of_an_earlier_version_are_read_under_their_present_name(redis_client, job_id):
    """A journal may be older than the process that reads it."""
    journal.append(redis_client, Claim(job_id, 1), [event(0, "sangha.job.completed", {})])

    entry = parse_shard_entry({b"j": hash_key(job_id).encode(), b"s": b"0", b"e": event(0, "sangha.job.dead", {}).data})

    assert [event.type for event in journal.read_events(redis_client, job_id)] == [b"sangha:job.completed"]
    assert entry == (0, [event(0, "sangha:job.dead", {}).data], None)


def said(first, last, by):
    return [event(n, "test.said", {"by": by}, 1) for n in range(first, last + 1)]


def speakers(redis_client, job_id):
    return [orjson.loads(found.data)["by"] for found in journal.read_events(redis_client, job_id)]


def append_held(redis_client, claim, events):
    """Append like the writer of an attempt that has taken the fence."""
    return journal.append(redis_client, claim, events, Fence.HELD).status


@pytest.mark.parametrize(("first", "second"), [(1, 1), (3, 1)])
def test_another_claim_with_the_same_or_a_lower_attempt_is_accepted_only_by_seizing_the_fence(
    redis_client, job_id, first, second
):
    """Postgres was replaced by a standby that lacks the last claims."""
    # Given a claim that Postgres has forgotten, and a later one that it knows
    forgotten, current = Claim(job_id, first, uuid4()), Claim(job_id, second, uuid4())
    journal.append(redis_client, forgotten, said(0, 1, "forgotten"))
    # When the later one takes the fence
    refused = journal.append(redis_client, current, [])
    seized = journal.append(redis_client, current, [], Fence.SEIZE)
    # Then it is refused until it seizes the fence, and the earlier one writes nothing more
    assert (refused.status, seized.status, seized.last, seized.fence) == ("fenced", "ok", 1, first)
    assert append_held(redis_client, forgotten, said(2, 5, "forgotten")) in ("fenced", "lost")
    assert append_held(redis_client, current, said(2, 3, "current")) == "ok"
    assert speakers(redis_client, job_id) == ["forgotten", "forgotten", "current", "current"]


def test_events_of_another_claim_are_replaced(redis_client, job_id):
    forgotten, current = Claim(job_id, 1, uuid4()), Claim(job_id, 1, uuid4())
    journal.append(redis_client, forgotten, said(0, 5, "forgotten"))

    result = journal.append(redis_client, current, said(2, 3, "current"), Fence.SEIZE, replace=True)

    assert result.last == 3
    assert speakers(redis_client, job_id) == ["current", "current"]
    assert read(redis_client, job_id) == [2, 3]


def test_the_previous_version_continues_a_journal_with_a_claim_and_is_superseded(redis_client, job_id):
    # Given a journal of an attempt with a claim
    claimed = Claim(job_id, 1, uuid4())
    journal.append(redis_client, claimed, said(0, 1, "claimed"))
    # When a worker of the previous version runs the next attempt
    assert previous_version.append(redis_client, job_id, 2, [])[0] == b"ok"
    assert previous_version.append(redis_client, job_id, 2, said(2, 3, "previous"), force=False)[0] == b"ok"
    # Then the first attempt is fenced, and the one after takes over
    assert append_held(redis_client, claimed, said(2, 2, "claimed")) == "fenced"
    third = Claim(job_id, 3, uuid4())
    assert journal.append(redis_client, third, []).status == "ok"
    assert previous_version.append(redis_client, job_id, 2, said(4, 4, "previous"), force=False)[0] == b"fenced"
    assert append_held(redis_client, third, said(4, 4, "third")) == "ok"
    assert speakers(redis_client, job_id) == ["claimed"] * 2 + ["previous"] * 2 + ["third"]


def test_the_claim_of_an_earlier_attempt_does_not_pass_for_that_of_the_previous_version(redis_client, job_id):
    """The previous version leaves the claim of the attempt before in the hash: so Postgres must be asked."""
    journal.append(redis_client, Claim(job_id, 1, uuid4()), said(0, 1, "claimed"))
    previous_version.append(redis_client, job_id, 2, said(2, 3, "previous"))

    assert journal.append(redis_client, Claim(job_id, 2, uuid4()), []).status == "fenced"


def test_a_journal_without_a_claim_is_accepted_by_its_attempt(redis_client, job_id):
    """The previous version has opened it."""
    previous_version.append(redis_client, job_id, 1, said(0, 1, "previous"))

    assert journal.append(redis_client, Claim(job_id, 1, uuid4()), said(2, 2, "claimed")).status == "ok"


@pytest.mark.parametrize("evicted", ["hash", "stream", "fence", "both"])
def test_an_append_after_an_eviction_is_lost_until_all_is_written_again(redis_client, job_id, evicted):
    # Given a journal of which Redis has evicted a part
    claim = Claim(job_id, 1, uuid4())
    journal.append(redis_client, claim, said(0, 3, "one"))
    evict(redis_client, job_id, evicted)
    # When the attempt appends
    status = append_held(redis_client, claim, said(4, 4, "one"))
    # Then it has to write the events again that it retains
    assert status == "lost"
    assert journal.append(redis_client, claim, said(2, 4, "one"), Fence.SEIZE, replace=True).last == 4
    assert append_held(redis_client, claim, said(5, 5, "one")) == "ok"
    assert read(redis_client, job_id) == [2, 3, 4, 5]


@pytest.mark.parametrize("evicted", ["hash", "fence"])
def test_the_end_of_the_stream_is_found_without_the_hash(redis_client, job_id, evicted):
    journal.append(redis_client, Claim(job_id, 1, uuid4()), said(0, 3, "one"))
    evict(redis_client, job_id, evicted)
    second = Claim(job_id, 2, uuid4())

    taken = journal.append(redis_client, second, [])

    assert (taken.status, taken.last, taken.fence) == ("ok", 3, -1)
    assert append_held(redis_client, second, said(4, 4, "two")) == "ok"
    assert read(redis_client, job_id) == [0, 1, 2, 3, 4]


def test_a_rewind_in_an_append_that_is_too_large_for_the_shard_is_announced(redis_client, job_id, read_shards):
    rewound = event(3, "sangha:journal.rewound", {})

    journal.append(redis_client, Claim(job_id, 1), [rewound, event(4, "test.said", {"text": "x" * 70_000})])

    assert read_shards() == [(3, [], 3)]


@pytest.mark.parametrize("excess", [0, 1])
def test_events_above_the_limit_of_a_shards_entry_are_left_to_the_jobs_stream(
    redis_client, job_id, read_shards, excess
):
    empty = len(event(2, "test.said", {"text": ""}).data)
    large = event(2, "test.said", {"text": "x" * (MAX_ENTRY + excess - empty)})

    journal.append(redis_client, Claim(job_id, 1), [large])

    lines = [] if excess else [large.data]
    assert read_shards() == [(2, lines, None)]
    fields = announcement(job_id, [large])[6:]
    assert (
        parse_shard_entry({name.encode(): value for name, value in zip(fields[::2], fields[1::2], strict=True)}).lines
        == lines
    )


def test_the_events_of_an_ending_are_marked(redis_client, job_id):
    ending = [replace(event(n, type_, {}), ending=True) for n, type_ in [(2, "test.done"), (3, "response.completed")]]

    journal.append(redis_client, Claim(job_id, 1), [*said(0, 1, "one"), *ending])
    journal.append(redis_client, Claim(job_id, 2), said(4, 4, "two"))

    found = journal.read_events(redis_client, job_id)
    assert [event.ending for event in found] == [False, False, True, True, False]


def test_events_are_appended_after_a_shard_was_evicted(redis_client, job_id, append, read_shards):
    take(redis_client, job_id, 1)
    append(1, 0, 1)
    redis_client.delete(*shard_keys())

    assert append(1, 2, 2) == ("ok", 2)

    assert read_shards() == [(2, [journal.read_events(redis_client, job_id)[-1].data], None)]

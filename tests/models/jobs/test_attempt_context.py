"""Open attempts after crashes, evictions and retries."""

import time

import orjson
import pytest
import redis

from models.jobs import attempts
from models.jobs.attempt_context import open_attempt, plain_ending, without_ending
from models.journal import journal
from models.journal.archive import archive, read_archive
from models.journal.events import REWOUND, event
from models.journal.journal import Claim
from models.journal.keys import hash_key, stream_key
from models.journal.writer import JournalWriter
from models.platform.errors import Cancelled, Fenced, Released, TimeLimitExceeded
from models.platform.redis_client import connect
from tests.models.journal.evictions import evict

OPENING = [event(n, "test.opened", {"n": n}) for n in range(2)]


@pytest.fixture
def writer(redis_client, database):
    def may_write(*claim):
        with database.connection() as connection:
            return attempts.may_write(connection, *claim)

    writer = JournalWriter(redis_client, may_write)
    yield writer
    writer.stop()


@pytest.fixture
def open_next(job_store, account, redis_client, writer):
    """`open_next()` opens the first attempt of a new job, `open_next(attempt)` the next one, by another worker."""

    def run(before=None, *, opening_in_redis=True):
        if before is None:
            job_id = job_store.enqueue(account, opening=OPENING)
            if opening_in_redis:
                journal.append(redis_client, Claim(job_id), OPENING)
        else:
            job_id = before.job.id
            job_store.update(job_id, "state = 'queued', run_at = now(), finished_at = NULL")
        failures = before.job.failures + 1 if before else 0
        job = job_store.claim(job_id, "message", f"worker {failures}")
        job_store.update(job_id, f"failures = {failures}")
        return open_attempt(job_store.job(job_id) if job else None, job_store.database, redis_client, writer)

    return run


def all_events(job_store, redis_client, job_id):
    """Return the events that a client receives from the beginning."""
    with job_store.database.connection() as connection:
        archived = read_archive(connection, job_id)
    recent = journal.read_events(redis_client, job_id, archived.last)
    assert [e.sequence for e in [*archived.events, *recent]] == list(range(len(archived.events) + len(recent)))
    return [e.data for e in [*archived.events, *recent]]


def open_without_journal(open_next, redis_client, writer):
    """Return an attempt whose journal with one event Redis has lost."""
    attempt = open_next()
    attempt.journal.write("test.said", {})
    writer.drain()
    journal.delete(redis_client, attempt.job.id)
    return attempt


def restart_redis(redis_client, job_id, events, fence):
    """Restart Redis with only `events` and `fence` of a journal."""
    redis_client.delete(stream_key(job_id))
    for each in events:
        redis_client.xadd(stream_key(job_id), {"e": each.data, "n": each.tokens}, f"{each.sequence + 1}-0")
    changes = {**fence, "last": events[-1].sequence, "server": "before the restart"}
    redis_client.hset(hash_key(job_id), mapping=changes)


@pytest.fixture
def forget_attempts(job_store):
    """`forget_attempts(job_id)`: Postgres is replaced by a standby that knows of no attempt at the job."""

    def run(job_id):
        job_store.update(
            job_id,
            "state = 'queued', run_at = now(), attempt = 0, claim_id = NULL, started_at = NULL, failures = 0, "
            "rewound_at = NULL",
        )

    return run


def claim_and_open(job_store, redis_client, writer, job_id, worker):
    job = job_store.claim(job_id, f"message to {worker}", worker)
    return open_attempt(job, job_store.database, redis_client, writer)


def finish(job_store, attempt):
    """End a job like a worker."""
    ending = plain_ending(attempt, "completed")
    with job_store.database.transaction() as connection:
        attempts.end(connection, attempt.job, ending, [*attempt.journal.archivable(), *ending.events])
    attempt.journal.append_endings(ending.events)


def wrote_only_rewound(attempt):
    return [event.type for event in attempt.journal.attempt_events()] == [REWOUND]


def read_archived(job_store, job_id):
    with job_store.database.connection() as connection:
        return read_archive(connection, job_id)


@pytest.mark.parametrize("opening_in_redis", [True, False])
def test_the_first_attempt_continues_after_the_opening_events(
    job_store, open_next, redis_client, writer, opening_in_redis
):
    """Also if the worker is faster than the web process, or Redis was unavailable to it."""
    attempt = open_next(opening_in_redis=opening_in_redis)

    assert attempt.journal.next_sequence == 2
    assert attempt.journal.attempt_events() == []
    assert len(journal.read_events(redis_client, attempt.job.id)) == 2


@pytest.mark.parametrize("evicted", [False, True])
def test_events_of_a_crashed_attempt_are_archived_by_the_next_one(job_store, open_next, redis_client, writer, evicted):
    """An ended journal expires soon in Redis: the archive must be complete by then."""
    first = open_next()
    for n in range(5):
        first.journal.write_text("test.delta", {}, f"w{n} ", 1)
        writer.drain()
    second = open_next(first)
    assert (len(second.history), second.tokens) == (7, 5)
    second.journal.write_text("test.delta", {}, "more", 1)
    writer.drain()
    if evicted:
        journal.delete(redis_client, second.job.id)
    finish(job_store, second)
    writer.drain()

    journal.delete(redis_client, second.job.id)

    assert [e.sequence for e in read_archived(job_store, second.job.id).events] == list(range(9))
    assert read_archived(job_store, second.job.id).tokens == 6


def test_the_archive_is_complete_after_a_checkpoint_and_a_retry(job_store, open_next, redis_client, writer):
    first = open_next()
    first.journal.write("test.said", {"n": 1})
    unarchived = first.journal.unarchived()
    with job_store.database.transaction() as connection:
        attempts.checkpoint(connection, first.job, unarchived)
    first.journal.mark_archived(unarchived[-1].sequence)
    first.journal.write("test.said", {"n": 2})
    with job_store.database.transaction() as connection:
        attempts.retry(connection, first.job, {}, "", first.journal.archivable())

    second = open_next(first)
    second.journal.write("test.said", {"n": 3})
    finish(job_store, second)
    writer.drain()

    assert [e.sequence for e in read_archived(job_store, first.job.id).events] == list(range(6))
    assert len(journal.read_events(redis_client, first.job.id)) == 6


def test_an_ending_archives_the_checkpoints_that_a_failover_has_lost(job_store, open_next, writer):
    # Given an attempt whose checkpoints are lost, but not its claim
    first = open_next()
    first.journal.write("test.said", {"n": 0})
    attempt = open_next(first)  # it archives the event of the one before with its own
    for n in range(1, 4):
        attempt.journal.write("test.said", {"n": n})
        writer.drain()
        unarchived = attempt.journal.unarchived()
        with job_store.database.transaction() as connection:
            attempts.checkpoint(connection, attempt.job, unarchived)
        attempt.journal.mark_archived(unarchived[-1].sequence)
    with job_store.database.connection() as connection:
        connection.execute("DELETE FROM job_events WHERE job_id = %s AND first_sequence > 1", (attempt.job.id,))
    # When it ends the job
    finish(job_store, attempt)
    # Then the archive is complete
    sequences = [e.sequence for e in read_archived(job_store, attempt.job.id).events]
    assert sequences == list(range(attempt.journal.next_sequence))


def test_an_ending_is_refused_where_the_archive_lacks_what_the_attempt_does_not_have(job_store, open_next):
    attempt = open_next()
    attempt.journal.write("test.said", {})
    with job_store.database.connection() as connection:
        connection.execute("DELETE FROM job_events WHERE job_id = %s", (attempt.job.id,))

    with pytest.raises(Fenced):
        finish(job_store, attempt)


def test_ending_after_a_concurrent_checkpoint_archives_no_event_twice(job_store, open_next, redis_client, writer):
    """The checkpoint commits after the ending has collected the unarchived events, or its confirmation is lost."""
    attempt = open_next()
    for n in range(3):
        attempt.journal.write("test.said", {"n": n})
    unarchived = attempt.journal.unarchived()
    with job_store.database.transaction() as connection:
        attempts.checkpoint(connection, attempt.job, unarchived)
    attempt.journal.write("test.said", {"n": 3})

    finish(job_store, attempt)

    assert [e.sequence for e in read_archived(job_store, attempt.job.id).events] == list(range(7))


def test_an_attempt_after_a_crash_and_an_eviction_writes_rewound(job_store, open_next, redis_client, writer):
    first = open_without_journal(open_next, redis_client, writer)

    second = open_next(first)

    assert wrote_only_rewound(second)
    assert job_store.job(first.job.id).rewound_at == 2
    writer.drain()
    assert len(all_events(job_store, redis_client, first.job.id)) == 3


@pytest.mark.parametrize("fence_lost", [False, True])
def test_an_attempt_that_a_failover_has_lost_together_with_events_is_followed_by_a_rewind(
    job_store, open_next, redis_client, writer, forget_attempts, fence_lost
):
    """Postgres knows of no attempt, and Redis was restarted without its last events, which clients have received."""
    # Given an attempt that wrote three events
    first = open_next()
    for n in range(3):
        first.journal.write("test.said", {"n": n})
        writer.drain()
    # When a failover loses its claim, and a restart of Redis its last events
    forget_attempts(first.job.id)
    if fence_lost:
        restart_redis(redis_client, first.job.id, OPENING, {"fence": 0, "claim": ""})
    else:
        restart_redis(redis_client, first.job.id, [*OPENING, event(2, "test.said", {"n": 0})], {})
    second = claim_and_open(job_store, redis_client, writer, first.job.id, "another worker")
    # Then the next one takes the clients back to what is left
    assert (second.job.attempt, second.job.failures) == (1, 0)
    assert wrote_only_rewound(second)
    assert job_store.job(first.job.id).rewound_at == (2 if fence_lost else 3)


@pytest.mark.parametrize("lost_by_redis", ["last event", "everything"])
def test_a_loss_is_noticed_until_an_attempt_has_announced_it(
    job_store, open_next, redis_client, writer, forget_attempts, lost_by_redis
):
    # Given an attempt of which Redis has lost an event, and the next one, which is killed before it announces that
    first = open_next()
    for n in range(2):
        first.journal.write("test.said", {"n": n})
        writer.drain()
    if lost_by_redis == "everything":
        journal.delete(redis_client, first.job.id)
    else:
        restart_redis(redis_client, first.job.id, [*OPENING, event(2, "test.said", {"n": 0})], {"fence": 1})
    second = open_next(first)
    second.journal.fenced = True
    writer.drain()
    # When Postgres forgets both, and another worker claims the job
    forget_attempts(first.job.id)
    third = claim_and_open(job_store, redis_client, writer, first.job.id, "another worker")
    # Then it announces that events are lost
    assert (third.job.attempt, third.job.failures) == (1, 0)
    assert wrote_only_rewound(third)
    assert job_store.job(first.job.id).rewound_at == (2 if lost_by_redis == "everything" else 3)


def test_a_loss_of_all_attempts_is_noticed_by_the_age_of_the_job(
    job_store, open_next, redis_client, writer, forget_attempts
):
    """Neither Postgres nor Redis knows of an attempt, whose events clients may have received."""
    first = open_without_journal(open_next, redis_client, writer)
    forget_attempts(first.job.id)
    job_store.update(first.job.id, "created_at = now() - interval '5 s'")

    second = claim_and_open(job_store, redis_client, writer, first.job.id, "another worker")

    assert wrote_only_rewound(second)
    assert job_store.job(first.job.id).rewound_at == 2


def test_a_rewind_that_a_failover_has_lost_from_the_row_is_stored_again(job_store, open_next, redis_client, writer):
    """A follower that was connected to neither Redis nor its shards at the rewind learns of it from the row."""
    # Given an attempt whose events Redis has lost, and the next one, which has announced that and written more
    first = open_without_journal(open_next, redis_client, writer)
    second = open_next(first)
    second.journal.write("test.said", {})
    writer.drain()
    # When a failover loses its claim with the rewind of the row
    job_store.update(first.job.id, "state = 'queued', attempt = 1, claim_id = NULL, rewound_at = NULL")
    job = job_store.claim(first.job.id, "another message", "another worker")
    third = open_attempt(job, job_store.database, redis_client, writer)
    # Then the row has it again, and the events are continued
    assert job_store.job(job.id).rewound_at == 2
    assert third.journal.next_sequence == 4
    assert not wrote_only_rewound(third)


def test_an_attempt_that_crashes_before_it_writes_rewound_leaves_it_to_the_next_one(
    job_store, open_next, redis_client, writer
):
    first = open_without_journal(open_next, redis_client, writer)
    second = open_next(first)

    second.journal.fenced = True  # its event is never sent
    third = open_next(second)
    assert wrote_only_rewound(third)
    writer.drain()

    fourth = open_next(third)
    assert not wrote_only_rewound(fourth)
    assert fourth.journal.next_sequence == 3


@pytest.mark.parametrize("kept_by_postgres", [0, 1, 2, 3])
def test_the_tokens_of_each_archived_event_are_known_from_redis_when_a_failover_has_lost_it(
    job_store, open_next, redis_client, writer, forget_attempts, kept_by_postgres
):
    """An attempt after a loss by Redis has written the archived events there again."""
    # Given a checkpoint of three events, which are in Redis only because the second attempt has written them there
    first = open_next()
    for tokens in (1, 2, 4):
        first.journal.write_atomically([("test.said", {"n": tokens})], tokens)
    events = first.journal.archivable()
    with job_store.database.transaction() as connection:
        attempts.checkpoint(connection, first.job, events)
    writer.drain()
    journal.delete(redis_client, first.job.id)
    open_next(first)
    writer.drain()
    # When a failover loses both attempts and the checkpoint but for its first events, which an earlier one has stored
    forget_attempts(first.job.id)
    with job_store.database.connection() as connection:
        connection.execute("DELETE FROM job_events WHERE job_id = %s AND first_sequence > 1", (first.job.id,))
        if kept_by_postgres:
            archive(connection, first.job.id, events[:kept_by_postgres])
    third = claim_and_open(job_store, redis_client, writer, first.job.id, "another worker")
    # Then the next attempt continues after all of their tokens
    assert third.tokens == 7
    assert [event.sequence for event in third.history] == [0, 1, 2, 3, 4, 5]  # the last one announces the loss


def test_an_attempt_counts_the_tokens_of_chunks_by_the_previous_version(job_store, open_next, redis_client, writer):
    """It has stored only their sum."""
    first = open_next()
    first.journal.write_atomically([("test.said", {})], 2)
    first.journal.write_atomically([("test.said", {})], 3)
    with job_store.database.transaction() as connection:
        attempts.checkpoint(connection, first.job, first.journal.archivable())
        connection.execute("UPDATE job_events SET event_tokens = NULL WHERE job_id = %s", (first.job.id,))

    assert open_next(first).tokens == 5


def test_an_eviction_of_archived_events_is_not_reported(job_store, open_next, redis_client, writer):
    """A released job is archived completely."""
    first = open_next()
    first.journal.write("test.said", {})
    with job_store.database.transaction() as connection:
        attempts.release(connection, first.job, first.journal.archivable())
    writer.drain()
    journal.delete(redis_client, first.job.id)

    job_store.update(first.job.id, "run_at = now()")
    job = job_store.claim(first.job.id, "m2", "w2")
    second = open_attempt(job, job_store.database, redis_client, writer)

    assert not wrote_only_rewound(second)
    assert len(all_events(job_store, redis_client, first.job.id)) == 3


def test_the_journal_survives_any_sequence_of_crashes_and_evictions(job_store, open_next, redis_client, writer):
    attempt = open_next()
    for round_ in range(6):
        for n in range(3):
            attempt.journal.write_text("test.delta", {}, f"{round_}.{n} ", 1)
        writer.drain()
        if round_ == 2:
            journal.delete(redis_client, attempt.job.id)  # during an attempt, which writes all of it again
            attempt.journal.write("test.said", {})
            writer.drain()
        attempt = open_next(attempt)
    finish(job_store, attempt)
    writer.drain()

    text = all_events(job_store, redis_client, attempt.job.id)
    journal.delete(redis_client, attempt.job.id)
    assert [e.data for e in read_archived(job_store, attempt.job.id).events] == text
    assert read_archived(job_store, attempt.job.id).tokens == 18


@pytest.mark.parametrize("evicted", ["hash", "stream", "fence", "shards", "both"])
def test_an_attempt_after_a_crash_and_an_eviction_continues_or_writes_rewound(
    job_store, open_next, redis_client, writer, evicted
):
    # Given an attempt that crashes, and an eviction of a part of its journal
    first = open_next()
    first.journal.write("test.said", {"by": 1})
    first.journal.write("test.said", {"by": 1})
    writer.drain()
    evict(redis_client, first.job.id, evicted)
    # When the next attempt opens the journal and writes
    second = open_next(first)
    second.journal.write("test.said", {"by": 2})
    writer.drain()
    # Then the events are complete, and those that were lost are announced
    events = all_events(job_store, redis_client, first.job.id)
    rewound_at = job_store.job(first.job.id).rewound_at
    if evicted in ("shards", "fence"):
        assert (rewound_at, len(events)) == (None, 5)
    else:
        kept = 2 if evicted in ("stream", "both") else 4
        assert (rewound_at, len(events)) == (kept, kept + 2)
        assert orjson.loads(events[kept])["type"] == REWOUND.decode()


@pytest.fixture
def fail_over(job_store):
    """`fail_over(attempt)`: Postgres is replaced by a standby that lacks the attempt's claim, and all after it."""

    def run(attempt):
        job = attempt.job
        job_store.update(
            job.id,
            f"state = 'queued', attempt = {job.attempt - 1}, claim_id = NULL, worker = NULL, message_id = NULL, "
            f"run_at = now(), finished_at = NULL, result = NULL, failures = {job.failures}",
        )
        with job_store.database.connection() as connection:
            connection.execute(
                "DELETE FROM job_events WHERE job_id = %s AND first_sequence >= %s", (job.id, len(OPENING))
            )

    return run


@pytest.mark.parametrize("lost_claims", [1, 2])
def test_an_attempt_after_a_failover_that_lost_claims_continues_and_the_forgotten_one_writes_nothing(
    job_store, open_next, redis_client, writer, fail_over, lost_claims
):
    # Given an attempt whose claim, and perhaps that of the attempt before, is lost by Postgres
    first = open_next()
    forgotten = first if lost_claims == 1 else open_next(first)
    forgotten.journal.write("test.said", {"by": "forgotten"})
    writer.drain()
    fail_over(first)
    # When another worker claims the job and opens the journal, and both write
    current = claim_and_open(job_store, redis_client, writer, first.job.id, "another worker")
    assert current.job.attempt == 1
    forgotten.journal.write("test.said", {"by": "forgotten, late"})
    current.journal.write("test.said", {"by": "current"})
    writer.drain()
    # Then the first events are continued, and the forgotten attempt is fenced
    said = [orjson.loads(data).get("by") for data in all_events(job_store, redis_client, first.job.id)]
    assert said == [None, None, "forgotten", "current"]
    assert [event.sequence for event in current.history] == [0, 1, 2]
    assert forgotten.journal.fenced


def test_a_forgotten_attempt_cannot_open_a_journal_that_another_claim_has_opened(
    job_store, open_next, redis_client, writer, fail_over
):
    """It has a higher number, so Redis alone would let it."""
    # Given an attempt that was claimed, but has not opened its journal, when Postgres lost its claim
    first = open_next()
    job_store.update(first.job.id, "state = 'queued', run_at = now()")
    forgotten = job_store.claim(first.job.id, "message", "a slow worker")
    fail_over(first)
    current = claim_and_open(job_store, redis_client, writer, first.job.id, "another worker")
    current.journal.write("test.said", {"by": "current"})
    writer.drain()
    # When it opens the journal
    with pytest.raises(Fenced):
        open_attempt(forgotten, job_store.database, redis_client, writer)
    # Then the current one continues
    current.journal.write("test.said", {"by": "current"})
    assert writer.drain()
    assert not current.journal.fenced
    assert len(all_events(job_store, redis_client, first.job.id)) == 4


def test_an_attempt_after_a_failover_that_lost_the_end_drops_it_and_writes_rewound(
    job_store, open_next, redis_client, writer, fail_over
):
    # Given a job that has ended, with several last events, and a standby that lacks its claim and its end
    first = open_next()
    first.journal.write("test.said", {})
    endings = first.journal.compose_endings([("test.done", {}), ("sangha:job.completed", {})])
    with job_store.database.transaction() as connection:
        attempts.end(
            connection, first.job, attempts.Ending("completed", endings), [*first.journal.archivable(), *endings]
        )
    first.journal.append_endings(endings)
    writer.drain()
    fail_over(first)
    # When another worker claims the job and finishes it
    second = claim_and_open(job_store, redis_client, writer, first.job.id, "another worker")
    # Then its history ends before the ending, whose place the announcement of the rewind takes
    assert [event.sequence for event in second.history] == [0, 1, 2]
    assert wrote_only_rewound(second)
    assert job_store.job(first.job.id).rewound_at == 3
    finish(job_store, second)
    writer.drain()
    types = [orjson.loads(data)["type"] for data in all_events(job_store, redis_client, first.job.id)]
    assert types == ["test.opened", "test.opened", "test.said", REWOUND.decode(), "sangha:job.completed"]


def test_an_attempt_after_a_failover_that_lost_a_cancellation_drops_its_event_and_writes_rewound(
    job_store, account, redis_client, writer
):
    # Given a journal that a cancellation has ended before any attempt, of which Postgres knows nothing
    job_id = job_store.enqueue(account, opening=OPENING)
    journal.append(redis_client, Claim(job_id), [*OPENING, event(2, "sangha:job.cancelled", {})])
    # When a worker claims the job and finishes it
    attempt = claim_and_open(job_store, redis_client, writer, job_id, "a worker")
    finish(job_store, attempt)
    writer.drain()
    # Then its events follow the opening ones, after the announcement of the rewind
    types = [orjson.loads(data)["type"] for data in all_events(job_store, redis_client, job_id)]
    assert types == ["test.opened", "test.opened", REWOUND.decode(), "sangha:job.completed"]


def test_only_the_last_event_of_an_ending_of_the_previous_version_is_dropped():
    """It does not mark the events before it."""
    events = [event(0, "test.said", {}), event(1, "test.done", {}), event(2, "response.completed", {})]

    assert without_ending(events) == events[:2]
    assert without_ending(events[:2]) == events[:2]


def test_a_superseded_attempt_is_fenced_when_it_opens(job_store, open_next, redis_client, writer):
    first = open_next()
    open_next(first)

    with pytest.raises(Fenced):
        open_attempt(first.job, job_store.database, redis_client, writer)


def test_opening_fails_without_redis(job_store, account, writer, tmp_path):
    job = job_store.start(account)

    with pytest.raises(redis.RedisError):
        open_attempt(job, job_store.database, connect(f"unix://{tmp_path}/nothing.sock"), writer)


def test_the_first_reason_to_stop_is_kept(open_next):
    attempt = open_next()
    attempt.check()
    assert not attempt.should_stop()

    attempt.stop("released")
    attempt.stop("cancelled")

    assert attempt.should_stop()
    with pytest.raises(Released):
        attempt.check()


def test_an_attempt_stops_for_each_reason(open_next):
    cancelled, late, overtaken, fenced = open_next(), open_next(), open_next(), open_next()
    cancelled.stop("cancelled")
    late.deadline = time.monotonic() - 1
    overtaken.stop("overtaken")
    fenced.journal.fenced = True

    for attempt, reason in [(cancelled, Cancelled), (late, TimeLimitExceeded), (overtaken, Fenced), (fenced, Fenced)]:
        assert attempt.should_stop()
        with pytest.raises(reason):
            attempt.check()


def test_progress_is_stored_in_the_row_and_in_the_journal(job_store, open_next, redis_client, writer):
    attempt = open_next()

    attempt.report_progress(3, 10, "pruning")
    writer.drain()

    assert job_store.job(attempt.job.id).progress == {"done": 3, "total": 10, "note": "pruning"}
    assert journal.read_events(redis_client, attempt.job.id)[-1].type == b"sangha:job.progress"
    attempt.stop("cancelled")
    with pytest.raises(Cancelled):
        attempt.report_progress(4)

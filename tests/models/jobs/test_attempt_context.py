"""Open attempts after crashes, evictions and retries."""

import time

import pytest
import redis

from models.jobs import attempts
from models.jobs.attempt_context import open_attempt, plain_ending
from models.journal import journal
from models.journal.archive import read_archive
from models.journal.events import REWOUND, event
from models.journal.writer import JournalWriter
from models.platform.errors import Cancelled, Fenced, Released, TimeLimitExceeded
from models.platform.redis_client import connect

OPENING = [event(n, "test.opened", {"n": n}) for n in range(2)]


@pytest.fixture
def writer(redis_client, database):
    def may_write(job_id, attempt):
        with database.connection() as connection:
            return attempts.may_write(connection, job_id, attempt)

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
                journal.append(redis_client, job_id, 0, OPENING)
        else:
            job_id = before.job.id
            job_store.update(job_id, "failures = 0, run_at = now()")
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


def finish(job_store, attempt):
    """End a job like a worker."""
    ending = plain_ending(attempt, "completed")
    with job_store.database.transaction() as connection:
        attempts.end(connection, attempt.job, ending, [*attempt.journal.unarchived(), *ending.events])
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
        attempts.retry(connection, first.job, {}, "", first.journal.unarchived())

    second = open_next(first)
    second.journal.write("test.said", {"n": 3})
    finish(job_store, second)
    writer.drain()

    assert [e.sequence for e in read_archived(job_store, first.job.id).events] == list(range(6))
    assert len(journal.read_events(redis_client, first.job.id)) == 6


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
    first = open_next()
    first.journal.write("test.said", {})
    writer.drain()
    journal.delete(redis_client, first.job.id)

    second = open_next(first)

    assert wrote_only_rewound(second)
    assert job_store.job(first.job.id).rewound_at == 2
    writer.drain()
    assert len(all_events(job_store, redis_client, first.job.id)) == 3


def test_an_attempt_that_crashes_before_it_writes_rewound_leaves_it_to_the_next_one(
    job_store, open_next, redis_client, writer
):
    first = open_next()
    first.journal.write("test.said", {})
    writer.drain()
    journal.delete(redis_client, first.job.id)
    second = open_next(first)

    second.journal.fenced = True  # its event is never sent
    third = open_next(second)
    assert wrote_only_rewound(third)
    writer.drain()

    fourth = open_next(third)
    assert not wrote_only_rewound(fourth)
    assert fourth.journal.next_sequence == 3


def test_an_eviction_of_archived_events_is_not_reported(job_store, open_next, redis_client, writer):
    """A released job is archived completely."""
    first = open_next()
    first.journal.write("test.said", {})
    with job_store.database.transaction() as connection:
        attempts.release(connection, first.job, first.journal.unarchived())
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

"""Given what earlier attempts left in Postgres and in Redis, when an attempt opens, then it goes on from there."""

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
def opened(job_store, account, redis_client, writer):
    """`opened()` → the first attempt at a new job; `opened(attempt)` → the next one, by another worker."""

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


def whole(job_store, redis_client, job_id):
    """What a reader sees who begins at the beginning."""
    with job_store.database.connection() as connection:
        archived = read_archive(connection, job_id)
    recent = journal.read_events(redis_client, job_id, archived.last)
    assert [e.sequence for e in [*archived.events, *recent]] == list(range(len(archived.events) + len(recent)))
    return [e.data for e in [*archived.events, *recent]]


def finish(job_store, attempt):
    """End as a worker does."""
    ending = plain_ending(attempt, "completed")
    with job_store.database.transaction() as connection:
        attempts.end(connection, attempt.job, ending, [*attempt.journal.unarchived(), *ending.events])
    attempt.journal.append_endings(ending.events)


def says_rewound(attempt):
    return [event.type for event in attempt.journal.attempt_events()] == [REWOUND]


def archived(job_store, job_id):
    with job_store.database.connection() as connection:
        return read_archive(connection, job_id)


@pytest.mark.parametrize("opening_in_redis", [True, False])
def test_the_first_attempt_goes_on_after_the_opening(job_store, opened, redis_client, writer, opening_in_redis):
    """Also where the worker is faster than the door, or Redis was away when the door spoke."""
    attempt = opened(opening_in_redis=opening_in_redis)

    assert attempt.journal.next_sequence == 2
    assert attempt.journal.attempt_events() == []
    assert len(journal.read_events(redis_client, attempt.job.id)) == 2


@pytest.mark.parametrize("forgotten", [False, True])
def test_what_a_dead_attempt_said_is_archived_by_the_next(job_store, opened, redis_client, writer, forgotten):
    """Redis forgets an ended journal soon: the archive must be whole by then, wherever the dead one had come to."""
    first = opened()
    for n in range(5):
        first.journal.write_text("test.delta", {}, f"w{n} ", 1)
        writer.drain()
    second = opened(first)
    assert (len(second.history), second.tokens) == (7, 5)
    second.journal.write_text("test.delta", {}, "more", 1)
    writer.drain()
    if forgotten:
        journal.delete(redis_client, second.job.id)
    finish(job_store, second)
    writer.drain()

    journal.delete(redis_client, second.job.id)

    assert [e.sequence for e in archived(job_store, second.job.id).events] == list(range(9))
    assert archived(job_store, second.job.id).tokens == 6


def test_a_checkpoint_and_a_retry_leave_the_archive_whole(job_store, opened, redis_client, writer):
    first = opened()
    first.journal.write("test.said", {"n": 1})
    unarchived = first.journal.unarchived()
    with job_store.database.transaction() as connection:
        attempts.checkpoint(connection, first.job, unarchived)
    first.journal.mark_archived(unarchived[-1].sequence)
    first.journal.write("test.said", {"n": 2})
    with job_store.database.transaction() as connection:
        attempts.retry(connection, first.job, {}, "", first.journal.unarchived())

    second = opened(first)
    second.journal.write("test.said", {"n": 3})
    finish(job_store, second)
    writer.drain()

    assert [e.sequence for e in archived(job_store, first.job.id).events] == list(range(6))
    assert len(journal.read_events(redis_client, first.job.id)) == 6


def test_an_end_that_meets_a_heartbeats_checkpoint_writes_nothing_twice(job_store, opened, redis_client, writer):
    """The checkpoint commits after the end has read what is unarchived, or its confirmation got lost."""
    attempt = opened()
    for n in range(3):
        attempt.journal.write("test.said", {"n": n})
    unarchived = attempt.journal.unarchived()
    with job_store.database.transaction() as connection:
        attempts.checkpoint(connection, attempt.job, unarchived)
    attempt.journal.write("test.said", {"n": 3})

    finish(job_store, attempt)

    assert [e.sequence for e in archived(job_store, attempt.job.id).events] == list(range(7))


def test_when_worker_and_redis_are_lost_the_next_says_so(job_store, opened, redis_client, writer):
    first = opened()
    first.journal.write("test.said", {})
    writer.drain()
    journal.delete(redis_client, first.job.id)

    second = opened(first)

    assert says_rewound(second)
    assert job_store.job(first.job.id).rewound_at == 2
    writer.drain()
    assert len(whole(job_store, redis_client, first.job.id)) == 3


def test_an_attempt_that_dies_before_it_said_so_leaves_it_to_the_one_after(job_store, opened, redis_client, writer):
    first = opened()
    first.journal.write("test.said", {})
    writer.drain()
    journal.delete(redis_client, first.job.id)
    second = opened(first)

    second.journal.fenced = True  # what it would have said never leaves it
    third = opened(second)
    assert says_rewound(third)
    writer.drain()

    fourth = opened(third)
    assert not says_rewound(fourth)
    assert fourth.journal.next_sequence == 3


def test_a_redis_that_forgot_what_the_archive_has_is_no_loss_to_tell_of(job_store, opened, redis_client, writer):
    """A worker that left in peace has archived everything."""
    first = opened()
    first.journal.write("test.said", {})
    with job_store.database.transaction() as connection:
        attempts.release(connection, first.job, first.journal.unarchived())
    writer.drain()
    journal.delete(redis_client, first.job.id)

    job_store.update(first.job.id, "run_at = now()")
    job = job_store.claim(first.job.id, "m2", "w2")
    second = open_attempt(job, job_store.database, redis_client, writer)

    assert not says_rewound(second)
    assert len(whole(job_store, redis_client, first.job.id)) == 3


def test_the_journal_survives_any_order_of_deaths_and_losses(job_store, opened, redis_client, writer):
    attempt = opened()
    for round_ in range(6):
        for n in range(3):
            attempt.journal.write_text("test.delta", {}, f"{round_}.{n} ", 1)
        writer.drain()
        if round_ == 2:
            journal.delete(redis_client, attempt.job.id)  # while an attempt lives: it writes all of it again
            attempt.journal.write("test.said", {})
            writer.drain()
        attempt = opened(attempt)
    finish(job_store, attempt)
    writer.drain()

    text = whole(job_store, redis_client, attempt.job.id)
    journal.delete(redis_client, attempt.job.id)
    assert [e.data for e in archived(job_store, attempt.job.id).events] == text
    assert archived(job_store, attempt.job.id).tokens == 18


def test_an_overtaken_attempt_does_not_open(job_store, opened, redis_client, writer):
    first = opened()
    opened(first)

    with pytest.raises(Fenced):
        open_attempt(first.job, job_store.database, redis_client, writer)


def test_without_redis_nothing_opens(job_store, account, writer, tmp_path):
    job = job_store.start(account)

    with pytest.raises(redis.RedisError):
        open_attempt(job, job_store.database, connect(f"unix://{tmp_path}/nothing.sock"), writer)


def test_the_first_reason_to_stop_counts(opened):
    attempt = opened()
    attempt.check()
    assert not attempt.should_stop()

    attempt.stop("released")
    attempt.stop("cancelled")

    assert attempt.should_stop()
    with pytest.raises(Released):
        attempt.check()


def test_reasons_to_stop(opened):
    cancelled, late, overtaken, fenced = opened(), opened(), opened(), opened()
    cancelled.stop("cancelled")
    late.deadline = time.monotonic() - 1
    overtaken.stop("overtaken")
    fenced.journal.fenced = True

    for attempt, reason in [(cancelled, Cancelled), (late, TimeLimitExceeded), (overtaken, Fenced), (fenced, Fenced)]:
        assert attempt.should_stop()
        with pytest.raises(reason):
            attempt.check()


def test_progress_is_in_the_row_and_on_the_stream(job_store, opened, redis_client, writer):
    attempt = opened()

    attempt.report_progress(3, 10, "pruning")
    writer.drain()

    assert job_store.job(attempt.job.id).progress == {"done": 3, "total": 10, "note": "pruning"}
    assert journal.read_events(redis_client, attempt.job.id)[-1].type == b"sangha:job.progress"
    attempt.stop("cancelled")
    with pytest.raises(Cancelled):
        attempt.report_progress(4)

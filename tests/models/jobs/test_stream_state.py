"""Repair the end of a job that a follower is beyond."""

import pytest

from models.jobs.cancellation import cancel
from models.jobs.stream_state import ended_ids, reopen_cancelled
from models.journal.archive import read_archive
from models.journal.events import event

OPENING_EVENTS = [event(0, "test.opened", {}), event(1, "test.opened", {})]


@pytest.fixture
def cancelled_job(job_store, account):
    """A job that was cancelled before any attempt: its ending has the number 2."""
    job_id = job_store.enqueue(account, opening=OPENING_EVENTS, serial_key=f"thread {account}")
    with job_store.database.transaction() as connection:
        cancel(connection, job_id, account)
    return job_id


def reopen(job_store, job_id, position):
    with job_store.database.transaction() as connection:
        return reopen_cancelled(connection, job_id, position)


def archived(job_store, job_id):
    with job_store.database.connection() as connection:
        return read_archive(connection, job_id).events


def test_a_job_whose_claim_was_lost_is_queued_again_for_a_follower_beyond_its_end(job_store, cancelled_job):
    assert reopen(job_store, cancelled_job, 30)

    job = job_store.job(cancelled_job)
    assert (job.state, job.finished_at, job.rewound_at) == ("queued", None, 2)
    assert job.cancel_requested_at is not None  # the next attempt ends it
    assert archived(job_store, cancelled_job) == OPENING_EVENTS
    assert job_store.claim(cancelled_job) is not None


@pytest.mark.parametrize("position", [1, 2])
def test_a_job_is_not_queued_again_for_a_follower_that_is_not_beyond_its_end(job_store, cancelled_job, position):
    assert not reopen(job_store, cancelled_job, position)

    assert job_store.job(cancelled_job).state == "cancelled"
    assert len(archived(job_store, cancelled_job)) == 3


def test_a_job_that_had_an_attempt_is_not_queued_again(job_store, cancelled_job):
    job_store.update(cancelled_job, "attempt = 1")

    assert not reopen(job_store, cancelled_job, 30)


def test_a_job_is_queued_again_behind_others_of_its_serial_key(job_store, account, cancelled_job):
    other = job_store.enqueue(account, serial_key=f"thread {account}")

    assert reopen(job_store, cancelled_job, 30)

    assert job_store.job(cancelled_job).blocked
    assert job_store.job(cancelled_job).sequence > job_store.job(other).sequence  # neither waits for the other


def test_ended_ids_include_missing_jobs(job_store, account):
    queued, ended = job_store.enqueue(account), job_store.enqueue(account)
    job_store.update(ended, "state = 'dead'")

    with job_store.database.connection() as connection:
        assert ended_ids(connection, [queued, ended, "job_gone"]) == {ended, "job_gone"}

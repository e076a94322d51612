"""Given a worker that runs jobs, when its heart beats, then leases live, checkpoints are kept and cancels are heard."""

import threading
import time
from datetime import timedelta

import pytest

from models.jobs import attempts
from models.jobs.attempt_context import Handler, plain_ending
from models.jobs.cancellation import cancel
from models.jobs.workers import living
from models.journal import journal
from models.journal.archive import read_archive
from tasks.heartbeat import GRACE, Heartbeat
from tests.waiting import eventually


@pytest.fixture
def heartbeat(runner, monkeypatch):
    """A quick heart."""
    monkeypatch.setattr(attempts, "RENEWAL", 0.05)
    monkeypatch.setattr("tasks.heartbeat.LISTEN_INTERVAL", 0.1)
    heartbeat = Heartbeat(runner, host="h", pid=1, pools=["p"], queues=["test"], threads=3)
    yield heartbeat
    if heartbeat._threads[0].is_alive():
        heartbeat.stop()


@pytest.fixture
def working(runner, desk, account):
    """A job that works until it is told to stop: its id, its attempt and its thread."""
    job_id, inside = desk.enqueue(account), threading.Event()

    def run(attempt):
        attempt.journal.write("test.said", {})
        inside.set()
        eventually(attempt.stopped)
        attempt.check()

    thread = threading.Thread(target=runner.execute, args=(Handler(run, plain_ending), job_id, "m"))
    thread.start()
    assert inside.wait(20)
    (attempt,) = runner.running_attempts()
    yield job_id, attempt, thread
    attempt.stop("released")
    thread.join(20)


def test_a_worker_is_on_the_list_from_its_start_to_its_stop(heartbeat, runner, desk):
    heartbeat.start()
    with desk.database.connection() as connection:
        (worker,) = living(connection)
    assert (worker.name, worker.queues, worker.threads) == (runner.name, ["test"], 3)

    heartbeat.stop()

    with desk.database.connection() as connection:
        assert living(connection) == []


def test_leases_are_renewed_and_what_was_said_is_kept(heartbeat, working, desk):
    job_id, attempt, _ = working
    desk.set(job_id, "lease_until = now()")
    heartbeat.start()

    eventually(lambda: desk.job(job_id).lease_until > desk.job(job_id).started_at + timedelta(seconds=10))
    with desk.database.connection() as connection:
        eventually(lambda: len(read_archive(connection, job_id).events) == 1)
    attempt.journal.write("test.said", {})
    with desk.database.connection() as connection:
        eventually(lambda: len(read_archive(connection, job_id).events) == 2)


def test_a_cancel_is_heard_over_redis_at_once(heartbeat, working, runner, desk, account, monkeypatch):
    monkeypatch.setattr(attempts, "RENEWAL", 3600)
    job_id, _, thread = working
    heartbeat.start()
    channel = journal.CANCEL_CHANNEL
    eventually(lambda: runner.client.pubsub_numsub(channel)[0][1] >= 1)
    with desk.database.transaction() as connection:
        done = cancel(connection, job_id, account)
    began = time.monotonic()

    journal.publish_cancellations(runner.client, done.running)
    thread.join(20)

    assert time.monotonic() - began < 0.5
    assert desk.job(job_id).state == "cancelled"


def test_a_cancel_that_redis_did_not_carry_is_heard_at_the_next_beat(heartbeat, working, desk, account):
    job_id, _, thread = working
    with desk.database.transaction() as connection:
        cancel(connection, job_id, account)

    heartbeat.start()
    thread.join(20)

    assert desk.job(job_id).state == "cancelled"


def test_an_overtaken_attempt_stops(heartbeat, working, desk):
    job_id, attempt, thread = working
    desk.claim(job_id, "m", "another worker")

    heartbeat.start()
    thread.join(20)

    assert not thread.is_alive()
    assert attempt._reason == "overtaken"
    assert (desk.job(job_id).state, desk.job(job_id).worker) == ("running", "another worker")


def test_an_attempt_far_beyond_its_time_loses_its_lease(heartbeat, working, desk):
    """It does not look whether it should stop: another worker has to."""
    job_id, attempt, _ = working
    before = desk.job(job_id).lease_until
    attempt.deadline = time.monotonic() - GRACE - 1
    heartbeat._once()

    assert desk.job(job_id).lease_until == before


def test_the_heart_goes_on_beating_after_a_failure(heartbeat, working, desk, monkeypatch):
    job_id, _, _ = working
    monkeypatch.setattr("tasks.heartbeat.RETRY_INTERVAL", 0.02)
    beats, renew = [], attempts.renew_leases

    def fail_twice(*arguments):
        beats.append(1)
        if len(beats) <= 2:
            raise ValueError
        return renew(*arguments)

    monkeypatch.setattr(attempts, "renew", fail_twice)
    desk.set(job_id, "lease_until = now() - interval '1 hour'")
    heartbeat._threads[0].start()

    eventually(lambda: desk.job(job_id).lease_until > desk.job(job_id).started_at)
    assert len(beats) >= 3
    heartbeat._threads[1].start()

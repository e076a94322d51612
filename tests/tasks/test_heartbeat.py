"""The heartbeat renews the lease, compares claims with rows, writes checkpoints and receives cancellations."""

import os
import subprocess
import threading
import time

import pytest

from bench.harness.waiting import wait_until
from models.jobs import leases, workers
from models.jobs.attempt_context import Handler, plain_ending
from models.jobs.cancellation import cancel
from models.jobs.windows import window_sizes
from models.jobs.workers import list_live
from models.journal import journal
from models.journal.archive import read_archive
from tasks.heartbeat import OVERDUE_GRACE, Heartbeat


@pytest.fixture
def heartbeat(runner, monkeypatch):
    """A heartbeat with short intervals."""
    monkeypatch.setattr(leases, "RENEWAL", 0.05)
    monkeypatch.setattr("tasks.heartbeat.LISTEN_INTERVAL", 0.1)
    heartbeat = Heartbeat(runner, host="h", pid=1, pools=["p"], threads={"test": 3})
    yield heartbeat
    if heartbeat._threads[0].is_alive():
        heartbeat.stop()


@pytest.fixture
def running_job(runner, job_store, account):
    """A job that runs until it is stopped: its id, its attempt and its thread."""
    job_id, started = job_store.enqueue(account), threading.Event()

    def run(attempt):
        attempt.journal.write("test.said", {})
        started.set()
        wait_until(attempt.should_stop)
        attempt.check()

    thread = threading.Thread(target=runner.execute, args=(Handler(run, plain_ending), job_id, "m"))
    thread.start()
    assert started.wait(20)
    (attempt,) = runner.running_attempts()
    yield job_id, attempt, thread
    attempt.stop("released")
    thread.join(20)


def test_worker_is_registered_from_start_to_stop(heartbeat, runner, job_store):
    heartbeat.start()
    with job_store.database.connection() as connection:
        (worker,) = list_live(connection)
    assert (worker.name, worker.queues, worker.threads) == (runner.name, ["test"], 3)

    heartbeat.stop()

    with job_store.database.connection() as connection:
        assert list_live(connection) == []


def dead_pid():
    """Return the pid of a process that has exited."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_worker_that_starts_counts_no_threads_of_dead_ones_on_its_host(heartbeat, job_store):
    # Given rows of a worker that was killed, of one that had the pid that this one has now, and of one that lives
    pids = {"killed": dead_pid(), "had this pid": 1, "lives": os.getpid()}
    with job_store.database.connection() as connection:
        for name, pid in pids.items():
            workers.register(connection, name, host="h", pid=pid, pools=["p"], threads={"test": 3})

    # When the worker starts
    heartbeat.start()

    # Then its threads and those of the one that lives count
    with job_store.database.connection() as connection:
        assert window_sizes(connection)["test"] == 6


def silence(job_store, runner):
    """Let the worker's lease expire."""
    with job_store.database.connection() as connection:
        connection.execute("UPDATE workers SET seen_at = now() - interval '1 hour' WHERE name = %s", (runner.name,))


def is_live(job_store, runner):
    with job_store.database.connection() as connection:
        return runner.name in [worker.name for worker in list_live(connection)]


def test_lease_is_renewed_and_events_are_archived(heartbeat, running_job, runner, job_store):
    job_id, attempt, _ = running_job
    heartbeat.start()
    silence(job_store, runner)

    wait_until(lambda: is_live(job_store, runner))
    with job_store.database.connection() as connection:
        wait_until(lambda: len(read_archive(connection, job_id).events) == 1)
    attempt.journal.write("test.said", {})
    with job_store.database.connection() as connection:
        wait_until(lambda: len(read_archive(connection, job_id).events) == 2)


def test_a_job_claimed_after_a_long_freeze_is_not_taken_for_one_of_a_dead_worker(runner, job_store, account):
    # Given a registered worker that was frozen for longer than its lease
    with job_store.database.connection() as connection:
        workers.register(connection, runner.name, host="h", pid=1, pools=["p"], threads={"test": 3})
    silence(job_store, runner)
    runner.lease_renewed_at -= leases.LEASE
    job_id = job_store.enqueue(account)

    def run(attempt):
        with job_store.database.connection() as connection:
            leases.give_back_of_silent(connection)
        return plain_ending(attempt, "completed")

    # When it claims a job before its next heartbeat, and the sweeper looks for silent workers
    runner.execute(Handler(run, plain_ending), job_id, "m")

    # Then the job is not given back
    job = job_store.job(job_id)
    assert (job.state, job.attempt, job.crashes) == ("completed", 1, 0)


def test_cancellation_over_redis_stops_the_attempt_at_once(
    heartbeat, running_job, runner, job_store, account, monkeypatch
):
    monkeypatch.setattr(leases, "RENEWAL", 3600)
    job_id, _, thread = running_job
    heartbeat.start()
    channel = journal.CANCEL_CHANNEL
    wait_until(lambda: runner.client.pubsub_numsub(channel)[0][1] >= 1)
    with job_store.database.transaction() as connection:
        cancellation = cancel(connection, job_id, account)
    start = time.monotonic()

    journal.publish_cancellations(runner.client, cancellation.running)
    thread.join(20)

    assert time.monotonic() - start < 5  # the heartbeat would take an hour
    assert job_store.job(job_id).state == "cancelled"


def test_cancellation_missed_by_redis_stops_the_attempt_at_the_next_heartbeat(
    heartbeat, running_job, job_store, account
):
    job_id, _, thread = running_job
    with job_store.database.transaction() as connection:
        cancel(connection, job_id, account)

    heartbeat.start()
    thread.join(20)

    assert job_store.job(job_id).state == "cancelled"


def test_attempt_stops_after_a_newer_claim(heartbeat, running_job, job_store):
    job_id, attempt, thread = running_job
    job_store.take_over(attempt.job)

    heartbeat.start()
    thread.join(20)

    assert not thread.is_alive()
    assert attempt._reason == "overtaken"
    assert (job_store.job(job_id).state, job_store.job(job_id).worker) == ("running", "another worker")


def test_overdue_attempt_is_abandoned_and_its_thread_leaves_the_window(heartbeat, runner, job_store, account):
    """Another worker takes the job over; the thread may be stuck for good."""
    # Given an attempt whose thread is stuck
    job_id, started, unstuck = job_store.enqueue(account), threading.Event(), threading.Event()

    def run(attempt):
        started.set()
        assert unstuck.wait(60)
        attempt.check()

    thread = threading.Thread(target=runner.execute, args=(Handler(run, plain_ending), job_id, "m"))
    thread.start()
    assert started.wait(20)
    (attempt,) = runner.running_attempts()
    heartbeat._beat_once()
    # When it is overdue
    attempt.deadline = time.monotonic() - OVERDUE_GRACE - 1
    heartbeat._beat_once()
    # Then it has failed, and the worker has a thread less
    assert (job_store.job(job_id).state, job_store.job(job_id).failures) == ("queued", 1)
    assert heartbeat._usable_threads([attempt.job]) == {"test": 2}
    with job_store.database.connection() as connection:
        assert [worker.threads for worker in list_live(connection) if worker.name == runner.name] == [3]
        row = connection.execute("SELECT queue_threads FROM workers WHERE name = %s", (runner.name,)).fetchone()
    assert row["queue_threads"] == {"test": 2}
    unstuck.set()
    thread.join(20)


def test_job_that_the_worker_does_not_run_is_put_back_at_the_second_beat(heartbeat, runner, job_store, account):
    """The first beat may see a claim whose reply is on its way."""
    job = job_store.claim(job_store.enqueue(account), worker=runner.name)

    heartbeat._beat_once()
    assert job_store.job(job.id).state == "running"
    heartbeat._beat_once()

    assert (job_store.job(job.id).state, job_store.job(job.id).failures) == ("queued", 0)


def test_heartbeat_continues_after_an_error(heartbeat, runner, job_store, monkeypatch):
    monkeypatch.setattr("tasks.heartbeat.RETRY_INTERVAL", 0.02)
    heartbeat._beat_once()
    beats, check = [], leases.check_claims

    def fail_twice(*arguments):
        beats.append(1)
        if len(beats) <= 2:
            raise ValueError
        return check(*arguments)

    monkeypatch.setattr(leases, "check_claims", fail_twice)
    heartbeat._threads[0].start()

    wait_until(lambda: len(beats) >= 3)
    assert is_live(job_store, runner)
    heartbeat._threads[1].start()


def test_heartbeat_stores_the_mean_of_attempts_and_counts_ended_turns(heartbeat, runner, job_store, account):
    # Given a worker that has ended a turn
    turn = job_store.job(job_store.enqueue(account, kind="turn.run"))
    runner.rates.begin(turn)
    runner.rates.finish(turn)
    before = ended_turns(job_store, turn.queue)
    runner.rates.count_end(turn)

    # When its heart beats twice
    heartbeat._beat_once()
    heartbeat._beat_once()

    # Then the turn counts once, and the mean is known
    assert ended_turns(job_store, turn.queue) == before + 1
    with job_store.database.connection() as connection:
        row = connection.execute("SELECT mean_seconds FROM workers WHERE name = %s", (runner.name,)).fetchone()
    assert row["mean_seconds"][turn.queue] >= 0


def ended_turns(job_store, queue):
    statement = "SELECT coalesce(sum(ended_turns), 0)::int AS ended FROM turn_counts WHERE turn_queue = %s"
    with job_store.database.connection() as connection:
        return connection.execute(statement, (queue,)).fetchone()["ended"]

"""Jobs of all kinds with arguments, events and results of megabytes end like small ones."""

import threading
import time
from dataclasses import replace

import pytest

from models.jobs.attempt_context import WaitForChildren, plain_ending
from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import NewJob
from models.journal import journal
from models.journal.archive import read_archive
from tests.tasks.handlers import COMPLETES, event_types, handler, raises

MEBIBYTE = 1_048_576

#: Seconds of a step, which takes below one. A batch that hangs would be ended after ten, and repeated.
LIMIT = 9.0


def text(mebibytes):
    return "x" * (mebibytes * MEBIBYTE)


def large_events(mebibytes, then):
    """Return a handler that writes an event of this size, and then has the outcome of `then`."""

    def run(attempt):
        attempt.journal.write("test.written", {"text": text(mebibytes)})
        return then(attempt)

    return handler(run)


def completes_with(mebibytes):
    return lambda attempt: plain_ending(attempt, "completed", result={"text": text(mebibytes)})


@pytest.fixture
def execute(runner):
    """`execute(handler, job_id)`: run a job and check that no step of it was repeated after a time-out."""

    def execute(job_handler, job_id):
        begin = time.monotonic()
        runner.execute(job_handler, job_id, "m")
        assert time.monotonic() - begin < LIMIT

    return execute


@pytest.mark.parametrize("kind", sorted(CATALOGUE))
def test_job_of_any_kind_ends_with_large_arguments_events_and_result(execute, runner, job_store, account, kind):
    job_id = job_store.enqueue(account, kind=kind, arguments={"text": text(4)})

    execute(large_events(4, completes_with(4)), job_id)

    job = job_store.job(job_id)
    assert (job.state, job.failures, job.result) == ("completed", 0, {"text": text(4)})
    assert event_types(runner, job_store, job_id) == ["test.written", "sangha:job.completed"]


@pytest.mark.parametrize("mebibytes", [1, 2, 4, 8])
def test_each_end_of_an_attempt_takes_events_of_any_size(execute, runner, job_store, account, mebibytes):
    """Given attempts that fail, wait for children and are cancelled after large events, when they end, then the archive
    has all events.
    """
    arguments = {"text": text(mebibytes)}
    failed, waiting, child = (job_store.enqueue(account, arguments=arguments) for _ in range(3))

    def wait(attempt):
        return WaitForChildren([NewJob("test.child", account, arguments)])

    execute(large_events(mebibytes, raises(ValueError())), failed)
    execute(large_events(mebibytes, wait), waiting)
    execute(large_events(mebibytes, completes_with(mebibytes)), child)

    states = [job_store.job(job_id).state for job_id in (failed, waiting, child)]
    assert states == ["scheduled", "waiting", "completed"]
    with job_store.database.connection() as connection:
        for job_id in (failed, waiting, child):
            recent = journal.read_events(runner.client, job_id)
            archived = read_archive(connection, job_id).events
            assert [event.data for event in archived[: len(recent)]] == [event.data for event in recent]
            assert len(archived[0].data) > mebibytes * MEBIBYTE


def test_result_that_no_request_waits_for_is_not_written(runner, job_store, account):
    """Given a request that goes away when its result is composed, when the job ends, then it is cancelled."""
    job_id = job_store.enqueue(account, kind="embedding.create")

    def run(attempt):
        ending = completes_with(2)(attempt)
        attempt.stop("cancelled")
        return ending

    runner.execute(handler(run), job_id, "m")

    job = job_store.job(job_id)
    assert (job.state, job.result) == ("cancelled", None)


def test_job_whose_end_keeps_losing_its_connection_fails(runner, job_store, account):
    """Given an ending whose statements crash their connection, when it is repeated, then the attempt fails after some
    tries, and the thread is free.
    """
    job_id = job_store.enqueue(account)
    tries = []

    def lose_connection(connection):
        tries.append(connection)
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        connection.sync()

    runner.execute(
        handler(lambda attempt: replace(plain_ending(attempt, "completed"), record=lose_connection)), job_id, "m"
    )

    job = job_store.job(job_id)
    assert (job.state, job.failures, len(tries)) == ("scheduled", 1, 5)


def test_outage_is_waited_for_however_long(runner, job_store, account, monkeypatch):
    """Given connections that are lost while the server does not answer, when it answers, then the job ends."""
    job_id, tries = job_store.enqueue(account), []
    answers = threading.Event()
    monkeypatch.setattr("tasks.retrying_database.RETRY_INTERVAL", 0)
    monkeypatch.setattr("tasks.retrying_database.RetryingDatabase._answers", lambda self: answers.is_set())

    def lose_connection(connection):
        tries.append(connection)
        if len(tries) < 10:
            connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            connection.sync()

    runner.execute(
        handler(lambda attempt: replace(plain_ending(attempt, "completed"), record=lose_connection)), job_id, "m"
    )

    assert (job_store.job(job_id).state, len(tries)) == ("completed", 10)


def test_large_job_does_not_delay_others(runner, job_store, account):
    """Given a job that ends with 8 MiB, when another one runs beside it, then that one ends too."""
    large, small = job_store.enqueue(account), job_store.enqueue(account)
    thread = threading.Thread(target=runner.execute, args=(large_events(8, completes_with(8)), large, "m"))
    thread.start()

    runner.execute(COMPLETES, small, "m2")
    thread.join(LIMIT)

    assert not thread.is_alive()
    assert [job_store.job(job_id).state for job_id in (large, small)] == ["completed", "completed"]

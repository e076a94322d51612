"""After each outcome of a handler, the job's row has the right next state."""

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.errors import LockNotAvailable, OutOfMemory, QueryCanceled

from bench.harness.waiting import wait_until
from models.access import rate_limits
from models.access.rate_limits import Bucket
from models.jobs import attempts
from models.jobs.attempt_context import WaitForChildren, plain_ending
from models.jobs.cancellation import cancel
from models.jobs.catalogue import CATALOGUE
from models.jobs.children import wait_for_children
from models.jobs.jobs import NewJob, children, enqueue
from models.jobs.leases import GIVE_BACK_OF_WORKER
from models.journal import journal
from models.journal.journal import Claim
from models.platform.errors import Moved, PermanentFailure, SanghaError
from tests.tasks.handlers import COMPLETES, completes, event_types, handler, make_due, raises


def test_successful_job_is_completed_and_its_journal_closed(runner, job_store, account):
    job_id = job_store.enqueue(account)

    runner.execute(COMPLETES, job_id, "m")

    job = job_store.job(job_id)
    assert (job.state, job.result, job.failures) == ("completed", {"attempt": 1}, 0)
    assert event_types(runner, job_store, job_id) == ["test.written", "sangha:job.completed"]
    assert len(journal.read_events(runner.client, job_id)) == 2
    assert runner.running_attempts() == []


def test_token_rate_limit_is_corrected_when_the_job_ends(runner, job_store, account):
    bucket = Bucket(f"account {account}", "tokens", 1000, 100, group=account)
    rate_limits.draw(runner.client, [bucket])
    job_id = job_store.enqueue(account, arguments=rate_limits.token_draw_arguments(None, 1000, 100))

    runner.execute(handler(lambda attempt: replace(completes(attempt), tokens=400)), job_id, "m")

    assert runner.writer.drain()
    (level,) = rate_limits.draw(runner.client, [replace(bucket, cost=0)]).levels
    assert level.remaining == pytest.approx(600, abs=30)


def test_second_delivery_of_an_ended_job_is_dropped(runner, job_store, account):
    job_id = job_store.enqueue(account)
    runner.execute(COMPLETES, job_id, "m")

    runner.execute(handler(raises(AssertionError("it ran twice"))), job_id, "m")
    runner.execute(handler(raises(AssertionError("it ran twice"))), job_id, "another")

    assert job_store.job(job_id).attempt == 1


def test_failed_job_is_retried_later_and_dead_after_its_last_attempt(runner, job_store, account):
    job_id, failing = job_store.enqueue(account), handler(raises(ValueError("the reason")))
    for failures in (1, 2):
        runner.execute(failing, job_id, f"m{failures}")
        job = job_store.job(job_id)
        assert (job.state, job.failures, job.published_at) == ("scheduled", failures, None)
        assert "ValueError: the reason" in job.traceback
        assert job_store.claim(job_id) is None  # run_at lies in the future
        make_due(job_store, job_id)

    runner.execute(failing, job_id, "m3")

    job = job_store.job(job_id)
    assert (job.state, job.attempt) == ("dead", 3)
    assert "ValueError: the reason" in job.traceback
    assert "the reason" not in str(job.error)  # for operators only
    assert event_types(runner, job_store, job_id) == ["test.written"] * 3 + ["sangha:job.dead"]


@pytest.mark.parametrize("error", [QueryCanceled("too slow"), LockNotAvailable("locked"), OutOfMemory("too large")])
def test_failed_statement_counts_as_a_failure(runner, job_store, account, error):
    """Only an outage releases a job without counting."""
    job_id = job_store.enqueue(account)
    for failures in (1, 2):
        runner.execute(handler(raises(error)), job_id, f"m{failures}")
        assert (job_store.job(job_id).state, job_store.job(job_id).failures) == ("scheduled", failures)
        make_due(job_store, job_id)

    runner.execute(handler(raises(error)), job_id, "m3")

    assert job_store.job(job_id).state == "dead"


def test_statement_that_is_cancelled_in_a_pipeline_counts_as_a_failure(runner, job_store, account):
    def run(attempt):
        with attempt.database.transaction() as connection:
            connection.execute("SET LOCAL statement_timeout = '10ms'")
            connection.execute("SELECT pg_sleep(60)")

    job_id = job_store.enqueue(account)

    runner.execute(handler(run), job_id, "m")

    assert (job_store.job(job_id).state, job_store.job(job_id).failures) == ("scheduled", 1)


def test_error_text_that_postgres_cannot_store_is_escaped(runner, job_store, account):
    job_id = job_store.enqueue(account)

    runner.execute(handler(raises(ValueError("nul \0, lone \ud800"))), job_id, "m")

    assert (job_store.job(job_id).state, job_store.job(job_id).failures) == ("scheduled", 1)


def test_permanent_failure_is_not_retried(runner, job_store, account):
    job_id = job_store.enqueue(account)

    runner.execute(handler(raises(PermanentFailure("no such file", code="gone"))), job_id, "m")

    job = job_store.job(job_id)
    assert (job.state, job.error) == ("failed", {"code": "gone", "message": "no such file"})
    assert event_types(runner, job_store, job_id) == ["test.written", "sangha:job.failed"]


def test_job_past_its_time_limit_fails(runner, job_store, account, monkeypatch):
    monkeypatch.setitem(CATALOGUE, "test.work", replace(CATALOGUE["test.work"], time_limit=0))
    job_id = job_store.enqueue(account)

    runner.execute(handler(lambda attempt: attempt.check()), job_id, "m")

    assert (job_store.job(job_id).state, job_store.job(job_id).error["code"]) == ("failed", "time_limit_exceeded")


def test_job_cancelled_between_attempts_ends_without_running(runner, job_store, account):
    job_id = job_store.enqueue(account)
    runner.execute(handler(raises(ValueError())), job_id, "m")
    with job_store.database.transaction() as connection:
        cancel(connection, job_id, account)

    runner.execute(handler(raises(AssertionError("it ran"))), job_id, "m2")

    assert job_store.job(job_id).state == "cancelled"
    assert event_types(runner, job_store, job_id) == ["test.written", "sangha:job.cancelled"]


def run_in_thread(runner, job_store, job_id):
    """Run a job that works until it is stopped, in a thread."""
    started = threading.Event()

    def run(attempt):
        attempt.journal.write("test.written", {})
        started.set()
        wait_until(attempt.should_stop)
        attempt.check()

    thread = threading.Thread(target=runner.execute, args=(handler(run), job_id, "m"))
    thread.start()
    assert started.wait(20)
    return thread


def test_cancelled_attempt_stops(runner, job_store, account):
    job_id = job_store.enqueue(account)
    thread = run_in_thread(runner, job_store, job_id)
    runner.cancel("job_of_another_worker")
    start = time.monotonic()

    runner.cancel(job_id)
    thread.join(20)

    assert time.monotonic() - start < 5  # its heartbeat would take longer
    assert job_store.job(job_id).state == "cancelled"
    assert event_types(runner, job_store, job_id) == ["test.written", "sangha:job.cancelled"]


def test_released_job_is_continued_by_another_worker(runners, job_store, account):
    stopping, other = runners("stopping"), runners("other")
    job_id = job_store.enqueue(account)
    thread = run_in_thread(stopping, job_store, job_id)

    stopping.release_all()
    thread.join(20)

    assert (job_store.job(job_id).state, job_store.job(job_id).failures) == ("queued", 0)
    other.execute(COMPLETES, job_id, "m2")
    assert job_store.job(job_id).result == {"attempt": 2}
    assert event_types(other, job_store, job_id) == ["test.written", "test.written", "sangha:job.completed"]


def test_a_stopping_worker_leaves_a_job_whose_message_it_receives_to_others(runners, job_store, account):
    # Given a published job, and a worker that is stopping
    stopping = runners("stopping")
    stopping.release_all()
    job_id = job_store.enqueue(account)
    job_store.update(job_id, "published_at = now()")
    # When it receives the job's message
    stopping.execute(handler(raises(AssertionError("it ran"))), job_id, "m1")
    # Then the job is published again, without an attempt
    job = job_store.job(job_id)
    assert (job.state, job.attempt, job.published_at) == ("queued", 0, None)
    assert stopping.relay.nudges == 1


def test_moved_job_is_continued_by_a_worker_of_the_other_queue(runners, job_store, account):
    runner, other = runners("worker"), runners("other")
    job_id = job_store.enqueue(account)

    runner.execute(handler(raises(Moved("a test", queue="elsewhere"))), job_id, "m1")

    assert (job_store.job(job_id).queue, job_store.job(job_id).failures) == ("elsewhere", 0)
    assert runner.relay.nudges == 1
    other.execute(COMPLETES, job_id, "m2")
    assert event_types(other, job_store, job_id) == ["test.written", "test.written", "sangha:job.completed"]


def failing_end(attempt, state, error=None):
    raise KeyError("no ending")


@pytest.mark.parametrize("run", [raises(ValueError("last")), raises(PermanentFailure("p"))])
def test_job_gets_a_plain_ending_when_its_handler_cannot_compose_one(runner, job_store, account, run):
    job_id = job_store.enqueue(account)
    journal.append(runner.client, Claim(job_id), [], complete=True)  # Redis knows the journal
    job_store.update(job_id, "failures = 2")

    runner.execute(handler(run, failing_end), job_id, "m")

    assert job_store.job(job_id).state == "dead"
    assert event_types(runner, job_store, job_id) == ["test.written", "sangha:job.dead"]


def failing_record(connection):
    connection.execute("SELECT no_such_column FROM jobs")


def test_error_while_recording_the_ending_is_retried(runner, job_store, account):
    """The transaction is rolled back; after the last attempt the job ends without its record."""

    def run(attempt):
        return replace(plain_ending(attempt, "completed"), record=failing_record)

    def end(attempt, state, error=None):
        return replace(plain_ending(attempt, state, error), record=failing_record)

    job_id = job_store.enqueue(account)
    for failures in (1, 2):
        runner.execute(handler(run, end), job_id, f"m{failures}")
        assert (job_store.job(job_id).state, job_store.job(job_id).failures) == ("scheduled", failures)
        assert "no_such_column" in job_store.job(job_id).traceback
        assert event_types(runner, job_store, job_id) == []
        make_due(job_store, job_id)

    runner.execute(handler(run, end), job_id, "m3")

    assert job_store.job(job_id).state == "dead"
    assert "no_such_column" in job_store.job(job_id).traceback
    assert event_types(runner, job_store, job_id) == ["sangha:job.dead"]


def test_job_that_kills_its_workers_is_dead_after_its_last_attempt(runners, job_store, account):
    """Its supervisor gives the job back and counts the crash."""

    class Killed(BaseException):
        pass

    job_id, runs = job_store.enqueue(account), []

    def run(attempt):
        runs.append(attempt.job.attempt)
        raise Killed

    for number in range(20):
        with job_store.database.connection() as connection:
            connection.execute(GIVE_BACK_OF_WORKER, {"workers": [f"worker {number - 1}"]})
        make_due(job_store, job_id)
        worker = runners(f"worker {number}")
        if job_store.job(job_id).failures < 3:
            with pytest.raises(Killed):
                worker.execute(handler(run), job_id, f"m{number}")
        else:
            worker.execute(handler(run), job_id, f"m{number}")
            break

    job = job_store.job(job_id)
    assert (job.state, job.error["code"], len(runs)) == ("dead", "worker_lost", 3)


def test_parent_waits_without_a_thread_and_continues_with_its_childrens_results(runner, job_store, account):
    def run(attempt):
        with attempt.database.connection() as connection:
            ended = children(connection, attempt.job.id)
        if not ended:
            attempt.journal.write("test.written", {"delegates": 2})
            return WaitForChildren([NewJob("test.child", account, {"n": n}) for n in range(2)])
        return plain_ending(attempt, "completed", result={"sum": sum(child.result["n"] for child in ended)})

    def child(attempt):
        return plain_ending(attempt, "completed", result={"n": attempt.job.arguments["n"] + 1})

    parent_id = job_store.enqueue(account)
    runner.execute(handler(run), parent_id, "m")
    assert job_store.job(parent_id).state == "waiting"
    assert runner.running_attempts() == []
    with job_store.database.connection() as connection:
        child_ids = [job.id for job in children(connection, parent_id)]
    for job_id in child_ids:
        nudges = runner.relay.nudges
        runner.execute(handler(child), job_id, f"m {job_id}")
        assert runner.relay.nudges > nudges

    runner.execute(handler(run), parent_id, "m2")

    assert (job_store.job(parent_id).state, job_store.job(parent_id).result) == ("completed", {"sum": 3})
    assert event_types(runner, job_store, parent_id) == ["test.written", "sangha:job.completed"]


def test_a_job_whose_child_cannot_be_enqueued_fails_at_once(runner, job_store, account):
    """Another attempt would meet the same child of another job."""
    key = f"once {account}"
    with job_store.database.transaction() as connection:
        child = NewJob("test.child", account, unique_key=key)
        wait_for_children(connection, job_store.start(account), [child])
    job_id = job_store.enqueue(account)

    runner.execute(
        handler(lambda attempt: WaitForChildren([NewJob("test.child", account, unique_key=key)])), job_id, "m"
    )

    job = job_store.job(job_id)
    assert (job.state, job.error["code"], job.failures) == ("failed", "child_taken", 0)


def test_a_job_whose_children_do_not_fit_the_month_any_more_runs_again(runner, job_store, account):
    # Given an account whose month another job has used up since the pipeline's estimate
    with job_store.database.connection() as connection:
        connection.execute("UPDATE accounts SET limits = '{\"tokens_per_month\": 100}' WHERE id = %s", (account,))
    job_store.enqueue(account, reserved_tokens=60)
    job_id = job_store.enqueue(account)

    # When the job enqueues a child
    child = NewJob("test.child", account, reserved_tokens=60)
    runner.execute(handler(lambda attempt: WaitForChildren([child], within_month=True)), job_id, "m")

    # Then it is released without a failure and without the child
    assert (job_store.job(job_id).state, job_store.job(job_id).failures) == ("queued", 0)
    with job_store.database.connection() as connection:
        assert children(connection, job_id) == []


def test_the_lanes_of_the_jobs_that_an_end_makes_due_are_nudged(runner, job_store, account, monkeypatch):
    nudged = []
    monkeypatch.setattr(runner.relay, "nudge", lambda *lanes: nudged.append(set(lanes)))
    key = f"thread {account}"
    first = job_store.enqueue(account, serial_key=key)
    job_store.enqueue(account, serial_key=key, lane="another_lane")

    runner.execute(COMPLETES, first, "m")

    assert nudged == [{"another_lane"}]


def test_children_that_the_parent_does_not_need_any_more_are_cancelled(runner, job_store, account):
    # Given a parent that continues when one of its children has completed
    def run(attempt):
        with attempt.database.connection() as connection:
            if children(connection, attempt.job.id):
                return plain_ending(attempt, "completed")
        return WaitForChildren([NewJob("test.child", account) for _ in range(3)], join_rule="any")

    parent_id = job_store.enqueue(account)
    runner.execute(handler(run), parent_id, "m")
    with job_store.database.connection() as connection:
        first, running, queued = (job.id for job in children(connection, parent_id))
    job_store.claim(running, worker="another worker")
    # When one completes
    runner.execute(COMPLETES, first, "m1")
    runner.execute(handler(run), parent_id, "m2")
    # Then the parent ends, and the others are cancelled
    assert job_store.job(parent_id).state == "completed"
    assert job_store.job(queued).state == "cancelled"
    assert job_store.job(running).cancel_requested_at is not None
    assert event_types(runner, job_store, queued) == ["sangha:job.cancelled"]


@pytest.fixture
def overdue_parent(runner, job_store, account):
    """A parent whose wait is over, and its running child."""
    parent_id = job_store.enqueue(account)
    wait = WaitForChildren([NewJob("test.child", account)], timeout=60)
    runner.execute(handler(lambda attempt: wait), parent_id, "m")
    with job_store.database.connection() as connection:
        [child] = children(connection, parent_id)
    job_store.claim(child.id, worker="another worker")
    job_store.update(parent_id, "state = 'queued', run_at = now()")
    return parent_id, child.id


def test_a_worker_that_dies_when_it_ends_a_parent_has_cancelled_the_other_children(
    runner, job_store, overdue_parent, monkeypatch
):
    """Nobody else would."""
    parent_id, child_id = overdue_parent

    def die(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(attempts, "end", die)
    with pytest.raises(KeyboardInterrupt):
        runner.execute(COMPLETES, parent_id, "m2")

    assert job_store.job(parent_id).state == "running"
    assert job_store.job(child_id).cancel_requested_at is not None


def test_a_superseded_attempt_cancels_no_children(runner, job_store, overdue_parent):
    """The later attempt may wait for them."""
    parent_id, child_id = overdue_parent

    def run(attempt):
        job_store.take_over(attempt.job)
        return completes(attempt)

    runner.execute(handler(run), parent_id, "m2")

    assert job_store.job(child_id).cancel_requested_at is None


def test_job_whose_deadline_has_passed_fails_without_running(runner, job_store, account):
    job_id = job_store.enqueue(account, deadline_at=datetime.now(UTC) - timedelta(seconds=1))

    runner.execute(handler(raises(AssertionError("it ran"))), job_id, "m")

    job = job_store.job(job_id)
    assert (job.state, job.error["code"]) == ("failed", "deadline_exceeded")


def test_attempt_stops_at_the_deadline_of_its_job(runner, job_store, account):
    job_id = job_store.enqueue(account, deadline_at=datetime.now(UTC) + timedelta(seconds=0.2))

    def run(attempt):
        wait_until(attempt.should_stop)
        attempt.check()

    runner.execute(handler(run), job_id, "m")

    assert (job_store.job(job_id).state, job_store.job(job_id).error["code"]) == ("failed", "deadline_exceeded")


def test_cancellation_before_the_children_are_inserted_ends_the_job(runner, job_store, account):
    """Only this attempt can end the job before its lease expires."""

    def run(attempt):
        with job_store.database.transaction() as connection:
            cancel(connection, attempt.job.id, account)
        return WaitForChildren([NewJob("test.child", account)])

    job_id = job_store.enqueue(account)
    runner.execute(handler(run), job_id, "m")

    assert job_store.job(job_id).state == "cancelled"
    with job_store.database.connection() as connection:
        assert children(connection, job_id) == []
    assert event_types(runner, job_store, job_id) == ["sangha:job.cancelled"]


def test_follow_ups_are_inserted_in_the_transaction_of_the_ending(runner, job_store, account):
    follow_up = NewJob("test.child", account)

    def run(attempt):
        return replace(completes(attempt), follow_ups=[follow_up])

    def run_with_failing_record(attempt):
        def record(connection):
            enqueue(connection, follow_up)
            raise SanghaError

        return replace(completes(attempt), record=record)

    job_id = job_store.enqueue(account)
    runner.execute(handler(run_with_failing_record), job_id, "m")
    with pytest.raises(AssertionError):
        job_store.job(follow_up.id)
    make_due(job_store, job_id)
    runner.execute(handler(run), job_id, "m2")

    assert (job_store.job(job_id).state, job_store.job(follow_up.id).state) == ("completed", "queued")


def events_of(job_store, account_id):
    statement = "SELECT event_type, data FROM account_events WHERE account_id = %s"
    with job_store.database.connection() as connection:
        return [(row["event_type"], row["data"]) for row in connection.execute(statement, (account_id,))]


@pytest.mark.parametrize("end", [None, failing_end])
def test_a_dead_job_is_an_event_of_its_account(runner, job_store, account, end):
    # Given a job that has failed twice
    job_id, failing = job_store.enqueue(account), raises(ValueError("the reason"))
    job_store.update(job_id, "failures = 2")
    # When it fails once more
    runner.execute(handler(failing, end) if end else handler(failing), job_id, "m")
    # Then its account has an event, which names its kind
    assert events_of(job_store, account) == [("job.dead", {"id": job_id, "kind": job_store.job(job_id).kind})]


def test_a_dead_job_of_the_platform_is_no_event(runner, job_store):
    job_id = job_store.enqueue("platform")
    job_store.update(job_id, "failures = 2")

    runner.execute(handler(raises(ValueError("the reason"))), job_id, "m")

    assert job_store.job(job_id).state == "dead"
    assert events_of(job_store, "platform") == []

"""Given a delivery, when its handler does well, badly or nothing at all, then the row says what comes next."""

import threading
import time
from dataclasses import replace

import pytest

from models.access import rate_limits
from models.access.rate_limits import Bucket
from models.jobs import outbox
from models.jobs.attempt_context import Waiting, plain_ending
from models.jobs.cancellation import cancel
from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import NewJob, children, enqueue
from models.journal import journal
from models.platform.errors import PermanentFailure, SanghaError
from tests.tasks.handlers import COMPLETES, completes, due_again, handler, raises, story
from tests.waiting import eventually


def test_what_succeeds_is_completed_and_its_journal_closed(runner, desk, account):
    job_id = desk.enqueue(account)

    runner.execute(COMPLETES, job_id, "m")

    job = desk.job(job_id)
    assert (job.state, job.result, job.failures) == ("completed", {"attempt": 1}, 0)
    assert story(runner, desk, job_id) == ["test.said", "sangha:job.completed"]
    assert len(journal.read_events(runner.client, job_id)) == 2
    assert runner.running_attempts() == []


def test_the_tokens_that_it_used_are_told_along_with_its_end(runner, desk, account):
    at_the_door = Bucket(f"account {account}", "tokens", 1000, 100)
    rate_limits.draw(runner.client, [at_the_door])
    job_id = desk.enqueue(account, arguments=rate_limits.token_draw_arguments(None, 1000, 100))

    runner.execute(handler(lambda attempt: replace(completes(attempt), tokens=400)), job_id, "m")

    assert runner.writer.drain()
    (level,) = rate_limits.draw(runner.client, [replace(at_the_door, cost=0)]).levels
    assert level.remaining == pytest.approx(600, abs=30)


def test_a_second_delivery_of_what_has_ended_is_dropped(runner, desk, account):
    job_id = desk.enqueue(account)
    runner.execute(COMPLETES, job_id, "m")

    runner.execute(handler(raises(AssertionError("it ran twice"))), job_id, "m")
    runner.execute(handler(raises(AssertionError("it ran twice"))), job_id, "another")

    assert desk.job(job_id).attempt == 1


def test_a_failure_is_tried_again_later_and_the_last_one_is_death(runner, desk, account):
    job_id, failing = desk.enqueue(account), handler(raises(ValueError("the reason")))
    for failures in (1, 2):
        runner.execute(failing, job_id, f"m{failures}")
        job = desk.job(job_id)
        assert (job.state, job.failures, job.published_at) == ("queued", failures, None)
        assert "ValueError: the reason" in job.traceback
        assert desk.claim(job_id) is None  # run_at lies in the future
        due_again(desk, job_id)

    runner.execute(failing, job_id, "m3")

    job = desk.job(job_id)
    assert (job.state, job.attempt) == ("dead", 3)
    assert "ValueError: the reason" in job.traceback
    assert "the reason" not in str(job.error)  # for operators only
    assert story(runner, desk, job_id) == ["test.said"] * 3 + ["sangha:job.dead"]


def test_a_failure_that_postgres_cannot_spell_is_a_failure_like_any(runner, desk, account):
    job_id = desk.enqueue(account)

    runner.execute(handler(raises(ValueError("nul \0, lone \ud800"))), job_id, "m")

    assert (desk.job(job_id).state, desk.job(job_id).failures) == ("queued", 1)


def test_a_failure_that_another_attempt_would_meet_again_fails_at_once(runner, desk, account):
    job_id = desk.enqueue(account)

    runner.execute(handler(raises(PermanentFailure("no such file", code="gone"))), job_id, "m")

    job = desk.job(job_id)
    assert (job.state, job.error) == ("failed", {"code": "gone", "message": "no such file"})
    assert story(runner, desk, job_id) == ["test.said", "sangha:job.failed"]


def test_what_takes_too_long_fails(runner, desk, account, monkeypatch):
    monkeypatch.setitem(CATALOGUE, "test.work", replace(CATALOGUE["test.work"], time_limit=0))
    job_id = desk.enqueue(account)

    runner.execute(handler(lambda attempt: attempt.check()), job_id, "m")

    assert (desk.job(job_id).state, desk.job(job_id).error["code"]) == ("failed", "time_limit_exceeded")


def test_what_was_cancelled_before_its_next_attempt_ends_without_running(runner, desk, account):
    job_id = desk.enqueue(account)
    runner.execute(handler(raises(ValueError())), job_id, "m")
    with desk.database.transaction() as connection:
        cancel(connection, job_id, account)

    runner.execute(handler(raises(AssertionError("it ran"))), job_id, "m2")

    assert desk.job(job_id).state == "cancelled"
    assert story(runner, desk, job_id) == ["test.said", "sangha:job.cancelled"]


def running_in_a_thread(runner, desk, job_id, started=None):
    """A job that works until it is told to stop."""
    inside = threading.Event()

    def run(attempt):
        attempt.journal.write("test.said", {})
        inside.set()
        eventually(attempt.stopped)
        attempt.check()

    thread = threading.Thread(target=runner.execute, args=(handler(run), job_id, "m"))
    thread.start()
    assert inside.wait(20)
    return thread


def test_what_is_cancelled_while_it_runs_stops(runner, desk, account):
    job_id = desk.enqueue(account)
    thread = running_in_a_thread(runner, desk, job_id)
    runner.cancel("job_of_another_worker")
    began = time.monotonic()

    runner.cancel(job_id)
    thread.join(20)

    assert time.monotonic() - began < 0.5
    assert desk.job(job_id).state == "cancelled"
    assert story(runner, desk, job_id) == ["test.said", "sangha:job.cancelled"]


def test_what_runs_when_its_worker_leaves_goes_on_elsewhere(runners, desk, account):
    leaving, other = runners("leaving"), runners("other")
    job_id = desk.enqueue(account)
    thread = running_in_a_thread(leaving, desk, job_id)

    leaving.release_all()
    thread.join(20)

    assert (desk.job(job_id).state, desk.job(job_id).failures) == ("queued", 0)
    other.execute(COMPLETES, job_id, "m2")
    assert desk.job(job_id).result == {"attempt": 2}
    assert story(other, desk, job_id) == ["test.said", "test.said", "sangha:job.completed"]


def no_words(attempt, state, error=None):
    raise KeyError("no words")


@pytest.mark.parametrize("run", [raises(ValueError("last")), raises(PermanentFailure("p"))])
def test_a_handler_that_cannot_say_how_it_ended_ends_plainly(runner, desk, account, run):
    job_id = desk.enqueue(account)
    journal.append(runner.client, job_id, 0, [])  # Redis has heard of it
    desk.set(job_id, "failures = 2")

    runner.execute(handler(run, no_words), job_id, "m")

    assert desk.job(job_id).state == "dead"
    assert story(runner, desk, job_id) == ["test.said", "sangha:job.dead"]


def broken(connection):
    connection.execute("SELECT no_such_column FROM jobs")


def test_an_end_that_cannot_be_recorded_is_a_failure_like_any(runner, desk, account):
    """Nothing of it stays; after the last try the job ends without its record."""

    def run(attempt):
        return replace(plain_ending(attempt, "completed"), record=broken)

    def end(attempt, state, error=None):
        return replace(plain_ending(attempt, state, error), record=broken)

    job_id = desk.enqueue(account)
    for failures in (1, 2):
        runner.execute(handler(run, end), job_id, f"m{failures}")
        assert (desk.job(job_id).state, desk.job(job_id).failures) == ("queued", failures)
        assert "no_such_column" in desk.job(job_id).traceback
        assert story(runner, desk, job_id) == []
        due_again(desk, job_id)

    runner.execute(handler(run, end), job_id, "m3")

    assert desk.job(job_id).state == "dead"
    assert "no_such_column" in desk.job(job_id).traceback
    assert story(runner, desk, job_id) == ["sangha:job.dead"]


def test_a_job_that_kills_its_workers_ends_dead_without_running_again(runners, desk, account):
    """The process is gone, so nothing but the next claim can count it."""

    class Killed(BaseException):
        pass

    job_id, runs = desk.enqueue(account), []

    def run(attempt):
        runs.append(attempt.job.attempt)
        raise Killed

    for number in range(20):
        with desk.database.connection() as connection:
            connection.execute("UPDATE jobs SET lease_until = now() - interval '1 s' WHERE state = 'running'")
            outbox.recover(connection)
        due_again(desk, job_id)
        worker = runners(f"worker {number}")
        if desk.job(job_id).failures < 3:
            with pytest.raises(Killed):
                worker.execute(handler(run), job_id, f"m{number}")
        else:
            worker.execute(handler(run), job_id, f"m{number}")
            break

    job = desk.job(job_id)
    assert (job.state, job.error["code"], len(runs)) == ("dead", "worker_lost", 3)


def test_a_parent_holds_no_thread_and_goes_on_with_its_childrens_results(runner, desk, account):
    def run(attempt):
        with attempt.database.connection() as connection:
            done = children(connection, attempt.job.id)
        if not done:
            attempt.journal.write("test.said", {"delegates": 2})
            return Waiting([NewJob("test.child", account, {"n": n}) for n in range(2)])
        return plain_ending(attempt, "completed", result={"sum": sum(child.result["n"] for child in done)})

    def child(attempt):
        return plain_ending(attempt, "completed", result={"n": attempt.job.arguments["n"] + 1})

    parent_id = desk.enqueue(account)
    runner.execute(handler(run), parent_id, "m")
    assert desk.job(parent_id).state == "waiting"
    assert runner.running_attempts() == []
    with desk.database.connection() as connection:
        born = [job.id for job in children(connection, parent_id)]
    for job_id in born:
        nudges = runner.relay.nudges
        runner.execute(handler(child), job_id, f"m {job_id}")
        assert runner.relay.nudges > nudges

    runner.execute(handler(run), parent_id, "m2")

    assert (desk.job(parent_id).state, desk.job(parent_id).result) == ("completed", {"sum": 3})
    assert story(runner, desk, parent_id) == ["test.said", "sangha:job.completed"]


def test_a_cancel_that_comes_before_the_children_is_settled_at_once(runner, desk, account):
    """Nobody else would: until the lease ran out the job would seem to run."""

    def run(attempt):
        with desk.database.transaction() as connection:
            cancel(connection, attempt.job.id, account)
        return Waiting([NewJob("test.child", account)])

    job_id = desk.enqueue(account)
    runner.execute(handler(run), job_id, "m")

    assert desk.job(job_id).state == "cancelled"
    with desk.database.connection() as connection:
        assert children(connection, job_id) == []
    assert story(runner, desk, job_id) == ["sangha:job.cancelled"]


def test_follow_ups_are_born_with_the_end_or_not_at_all(runner, desk, account):
    follow_up = NewJob("test.child", account)

    def run(attempt):
        return replace(completes(attempt), follow_ups=[follow_up])

    def run_in_vain(attempt):
        def record(connection):
            enqueue(connection, follow_up)
            raise SanghaError

        return replace(completes(attempt), record=record)

    job_id = desk.enqueue(account)
    runner.execute(handler(run_in_vain), job_id, "m")
    with pytest.raises(AssertionError):
        desk.job(follow_up.id)
    due_again(desk, job_id)
    runner.execute(handler(run), job_id, "m2")

    assert (desk.job(job_id).state, desk.job(follow_up.id).state) == ("completed", "queued")

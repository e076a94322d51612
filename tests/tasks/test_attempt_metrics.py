"""What a worker counts of attempts and turns."""

from datetime import UTC, datetime, timedelta

import pytest

from models.jobs.attempt_context import WaitForChildren, plain_ending
from models.jobs.catalogue import CATALOGUE, JobKind
from models.jobs.jobs import NewJob
from models.platform.errors import Moved, Released
from models.platform.metrics import name_model
from tests.counted import counted
from tests.tasks.handlers import COMPLETES, handler, raises

DURATION = "sangha_job_attempt_duration_seconds_count"


def waits(attempt):
    return WaitForChildren([NewJob("test.child", attempt.job.account_id)])


@pytest.mark.parametrize(
    ("run", "outcome"),
    [
        (COMPLETES, "completed"),
        (handler(raises(ValueError("a fault"))), "retried"),
        (handler(raises(Released("later", delay=5))), "released"),
        (handler(raises(Moved("elsewhere", queue="test_batch"))), "moved"),
        (handler(waits), "waiting"),
    ],
)
def test_each_attempt_is_counted_once_with_its_outcome(runner, job_store, account, run, outcome):
    # Given a job that was due ten seconds ago
    attempts = counted(DURATION, kind="test.work", outcome=outcome)
    claims = counted("sangha_job_queue_wait_seconds_count", queue="test", kind="test.work")
    waited = counted("sangha_job_queue_wait_seconds_sum", queue="test", kind="test.work")
    job_id = job_store.enqueue(account)
    job_store.update(job_id, "run_at = now() - interval '10 s'")
    # When it is attempted
    runner.execute(run, job_id, "m")
    # Then the attempt is counted, and how long the job was due before
    assert attempts() == claims() == 1
    assert 10 <= waited() < 60


def test_an_attempt_that_a_later_one_has_replaced_is_fenced(runner, job_store, account):
    fenced = counted(DURATION, kind="test.work", outcome="fenced")
    ended = counted("sangha_jobs_ended_total", kind="test.work", state="completed")
    job_id = job_store.enqueue(account)

    def overtaken(attempt):
        job_store.update(job_id, "attempt = attempt + 1")
        return plain_ending(attempt, "completed")

    runner.execute(handler(overtaken), job_id, "m")

    assert (fenced(), ended()) == (1, 0)


def test_a_message_without_a_job_to_claim_counts_nothing(runner, job_store, account):
    job_id = job_store.enqueue(account)
    runner.execute(COMPLETES, job_id, "m")
    claims = counted("sangha_job_queue_wait_seconds_count", queue="test", kind="test.work")

    runner.execute(COMPLETES, job_id, "again")

    assert claims() == 0


@pytest.mark.parametrize(("model", "label"), [("of-this-test", "of-this-test"), ("of-a-request", "other")])
def test_a_turn_counts_its_times_by_a_model_of_the_installation(runner, job_store, account, monkeypatch, model, label):
    # Given a turn that was created a minute ago and due at once
    monkeypatch.setitem(CATALOGUE, "turn.run", JobKind(queue="test", attempts=3))
    name_model("of-this-test")
    durations = counted("sangha_turn_duration_seconds_sum", model=label, state="completed")
    first_tokens = counted("sangha_time_to_first_token_seconds_sum", model=label)
    per_token = counted("sangha_time_per_output_token_seconds_count", model=label)
    ended = counted("sangha_jobs_ended_total", kind="turn.run", state="completed")
    job_id = job_store.enqueue(account, kind="turn.run")
    job_store.update(job_id, "created_at = now() - interval '60 s'")

    def answers(attempt):
        attempt.model = model
        for text in ("a", "b"):
            attempt.journal.write_text("response.output_text.delta", {"delta": ""}, text, 1)
        return plain_ending(attempt, "completed")

    # When it is answered
    runner.execute(handler(answers), job_id, "m")
    # Then the times count from its creation
    assert 60 <= first_tokens() <= durations() < 120
    assert per_token() == ended() == 1


def test_the_wait_of_a_later_attempt_counts_from_the_time_that_it_was_due(runner, job_store, account):
    job_id = job_store.enqueue(account)
    runner.execute(handler(raises(Released("later", delay=600))), job_id, "m")
    job_store.update(job_id, "state = 'queued', started_at = now() - interval '1 h', run_at = now() - interval '5 s'")
    waited = counted("sangha_job_queue_wait_seconds_sum", queue="test", kind="test.work")

    runner.execute(COMPLETES, job_id, "m2")

    assert 5 <= waited() < 60
    assert job_store.job(job_id).started_at < datetime.now(UTC) - timedelta(minutes=59)

"""The health of a worker process, and its gauges."""

import threading
import time

import pytest

from models.jobs.attempt_context import plain_ending
from models.jobs.leases import LEASE
from models.serving.served_models import ModelDescription
from tasks.heartbeat import Heartbeat
from tasks.worker import create_dramatiq_worker
from tasks.worker_gauges import engine_slots, journal_memory
from tasks.worker_health import WorkerHealth
from tests.tasks.handlers import handler


@pytest.fixture
def started(runner):
    """The health of a worker that consumes a queue, and its parts."""
    heartbeat = Heartbeat(runner, host="h", pid=1, pools=["p"], threads={"test": 1})
    worker = create_dramatiq_worker(runner, "test", 1)
    health = WorkerHealth()
    heartbeat.start()
    worker.start()
    health.started(runner, heartbeat, [worker])
    yield health, heartbeat, worker
    worker.stop()
    if heartbeat.threads[0].is_alive():
        heartbeat.stop()


def test_a_worker_that_loads_its_engine_is_alive_and_not_ready():
    health = WorkerHealth()

    assert health.live() == []
    assert health.ready() == ["the engine is being loaded"]


def test_a_worker_that_consumes_is_ready(started):
    health, _, _ = started

    assert (health.live(), health.ready()) == ([], [])


def test_a_worker_without_a_heartbeat_thread_should_be_restarted(started):
    health, heartbeat, _ = started

    heartbeat.stop()

    assert health.live() == ["the thread heartbeat has ended", "the thread cancel-listener has ended"]
    assert health.ready() == health.live()


def test_a_worker_without_message_threads_should_be_restarted(started):
    health, _, worker = started

    worker.stop()

    assert len(health.live()) == 2  # the consumer and the thread


def test_a_worker_whose_lease_has_expired_is_alive_and_not_ready(started, runner):
    """As while Postgres is away: a restart would not help."""
    health, _, _ = started

    runner.lease_renewed_at = time.monotonic() - LEASE - 1

    assert health.live() == []
    assert "the lease was renewed 16 s ago" in health.ready()[0]


def test_a_stopping_worker_is_alive_and_not_ready(started, runner):
    health, heartbeat, _ = started

    runner.release_all()
    heartbeat.stop()

    assert (health.live(), health.ready()) == ([], ["the worker is stopping"])


def test_slots_are_busy_while_an_attempt_of_the_model_runs(runner, job_store, account):
    # Given a worker of a model with four slots, and of an endpoint with two models
    runner.serve(ModelDescription("small", slots=4), "test")
    for model in ("large", "huge"):
        runner.serve(ModelDescription(model, endpoint="groq", slots=8), "upstream.groq")
    seen, running, end = {}, threading.Event(), threading.Event()

    def run(attempt):
        attempt.journal.write("test.written", {"text": "x" * 1000})
        running.set()
        end.wait(20)
        return plain_ending(attempt, "completed")

    # When an attempt runs
    job_id = job_store.enqueue(account)
    thread = threading.Thread(target=runner.execute, args=(handler(run), job_id, "m"))
    thread.start()
    assert running.wait(20)
    seen = engine_slots(runner)
    kept = journal_memory(runner)[()]
    end.set()
    thread.join(20)
    # Then it uses one of the slots, and the worker keeps its events until it has ended
    assert seen == {("small", "busy"): 1, ("small", "free"): 3, ("groq", "busy"): 0, ("groq", "free"): 8}
    assert 1000 < kept < 2000
    assert engine_slots(runner)["small", "busy"] == 0
    assert journal_memory(runner) == {(): 0}

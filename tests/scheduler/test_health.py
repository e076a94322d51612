"""The health of a scheduler, and when its tasks last succeeded."""

import time

import pytest

from bench.harness.waiting import wait_until
from models.platform.errors import Unavailable
from models.platform.exposition import Exposition
from scheduler import health as module
from scheduler.health import SchedulerHealth
from scheduler.periodic_thread import PeriodicThread


@pytest.fixture
def start():
    """`start(function)` → a started task with a short interval."""
    tasks = []

    def start(function, name="sweeper"):
        tasks.append(PeriodicThread(name, 0.01, function).start())
        return tasks[-1]

    yield start
    for task in tasks:
        task.stop()


def metrics_of(health):
    exposition = Exposition()
    health.install(exposition)
    return exposition.render()[0].decode()


def test_a_scheduler_that_starts_is_alive_and_not_ready():
    health = SchedulerHealth()

    assert (health.live(), health.ready()) == ([], ["the scheduler is starting"])
    assert "sangha_scheduler_leader 0.0" in metrics_of(health)


def test_a_scheduler_whose_tasks_succeed_is_ready(start):
    health, task = SchedulerHealth(), start(lambda: None)
    health.started([task])
    wait_until(lambda: task.last_success)

    assert (health.live(), health.ready()) == ([], [])
    text = metrics_of(health)
    assert "sangha_scheduler_leader 1.0" in text
    assert 'sangha_scheduler_last_run_timestamp_seconds{task="sweeper"} 1.' in text


def test_a_scheduler_without_its_database_is_alive_and_not_ready(start, monkeypatch):
    # Given a task that has failed twice since its last success
    monkeypatch.setattr(module, "SILENCE", 0.0)
    monkeypatch.setattr(module, "INTERVALS", 0)
    calls = []

    def fail():
        calls.append(time.time())
        raise Unavailable("away")

    health, task = SchedulerHealth(), start(fail)
    health.started([task])
    wait_until(lambda: len(calls) > 1)
    # Then it should not be restarted, and does no work
    assert (health.live(), health.ready()) == ([], ["sweeper has not succeeded lately"])
    assert "sangha_scheduler_last_run_timestamp_seconds{" not in metrics_of(health)


def test_a_scheduler_without_one_of_its_threads_should_be_restarted(start):
    health, tasks = SchedulerHealth(), [start(lambda: None, "sweeper"), start(lambda: None, "clock")]
    health.started(tasks)

    tasks[1].stop()

    assert health.live() == ["the thread clock has ended"]

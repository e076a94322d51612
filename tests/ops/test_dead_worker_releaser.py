"""The releaser gives back the jobs of a dead worker, and publishes them."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bench.harness.processes import changed
from bench.harness.waiting import wait_until
from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import Job
from models.jobs.workers import register
from models.platform.settings import Settings
from ops.dead_worker_releaser import DeadWorkerReleaser
from tasks.broker import Broker, build_broker
from tests.models.conftest import JobStore, empty_job_store, kinds, own_database

__all__ = ["empty_job_store", "kinds", "own_database"]  # fixtures of tests/models

KIND = "data.erase"


@pytest.fixture
def broker(settings: Settings) -> Iterator[Broker]:
    """The embedded default's broker, with empty queues."""
    with closing(build_broker(settings.broker_address)) as broker:
        broker.flush_all()
        yield broker
        broker.flush_all()


@pytest.fixture
def releaser(settings: Settings, empty_job_store: JobStore, console: list[str]) -> Iterator[DeadWorkerReleaser]:
    """A releaser of an empty database."""
    own = changed(settings, database_url=empty_job_store.database.dsn)
    with closing(DeadWorkerReleaser(own, console.append)) as releaser:
        yield releaser


@pytest.fixture
def console() -> list[str]:
    """The lines that were printed."""
    return []


def run_on_worker(job_store: JobStore, pid: int) -> Job:
    """Let a worker with this pid claim a job."""
    with job_store.database.connection() as connection:
        queues = {CATALOGUE[KIND].queue: 2}
        register(connection, "worker", host=socket.gethostname(), pid=pid, pools=[], threads=queues)
    return job_store.start(job_store.create_account(), kind=KIND)


def is_published(job_store: JobStore, job: Job) -> bool:
    """Return whether the job is queued again, with a message."""
    after = job_store.job(job.id)
    return after.state == "queued" and after.published_at is not None


def test_the_jobs_of_a_dead_worker_are_published_again(
    releaser: DeadWorkerReleaser, empty_job_store: JobStore, broker: Broker, console: list[str]
) -> None:
    # Given a job that a worker runs
    job = run_on_worker(empty_job_store, 7)

    # When the worker is dead
    releaser.release(7)

    # Then another message has its job
    wait_until(lambda: is_published(empty_job_store, job))
    assert empty_job_store.job(job.id).crashes == 1
    assert console == ["  released 1 jobs of the dead worker 7"]


def test_the_workers_of_the_last_run_are_dead(
    releaser: DeadWorkerReleaser, empty_job_store: JobStore, broker: Broker, tmp_path: Path
) -> None:
    # Given a job of a worker whose pid file is left
    job = run_on_worker(empty_job_store, 7)
    pid_file = tmp_path / "worker-light.pid"
    pid_file.write_text("7\n")

    # When the next run begins
    releaser.release_last_run(tmp_path)

    # Then the job is published again, and the file is deleted
    wait_until(lambda: is_published(empty_job_store, job))
    assert not pid_file.exists()

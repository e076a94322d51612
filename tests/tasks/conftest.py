"""Job runners on real servers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
import redis

from models.jobs import attempts
from models.jobs.catalogue import CATALOGUE, JobKind
from models.journal.writer import JournalWriter
from models.platform.database import Database
from models.platform.redis_client import connect
from models.platform.settings import Settings
from tasks.broker import Broker, build_broker
from tasks.job_runner import JobRunner
from tasks.relay import Relay
from tests.models.conftest import JobStore, empty_job_store, own_database

__all__ = ["empty_job_store", "own_database"]  # fixtures of tests/models


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds of work on a queue that no other test serves."""
    monkeypatch.setitem(CATALOGUE, "test.work", JobKind(queue="test", attempts=3, backoff=600))  # type: ignore[arg-type]
    monkeypatch.setitem(CATALOGUE, "test.child", JobKind(queue="test", attempts=3, backoff=600))  # type: ignore[arg-type]


@pytest.fixture
def job_store(empty_job_store: JobStore) -> JobStore:
    """An empty database, since a relay publishes every due job of its database."""
    return empty_job_store


@pytest.fixture
def account(job_store: JobStore) -> str:
    """The id of a new account."""
    return job_store.create_account()


@pytest.fixture
def broker(settings: Settings, kinds: None) -> Iterator[Broker]:
    """The embedded default's broker, with empty queues."""
    broker = build_broker(settings.broker_address)
    broker.flush_all()
    yield broker
    broker.flush_all()
    broker.close()


@contextmanager
def broker_with_queue(settings: Settings, queue: str) -> Iterator[Broker]:
    """Return the broker of the settings, with an empty queue."""
    broker = build_broker(settings.broker_address)
    if settings.broker_url:
        broker.declare_queue(queue, ensure=True)
    broker.flush(queue)
    yield broker
    broker.flush(queue)
    broker.close()


class CountingRelay(Relay):
    """A relay that does not publish by itself and counts its nudges."""

    nudges = 0

    def nudge(self, *lanes: str) -> None:
        self.nudges += 1


@pytest.fixture
def runners(job_store: JobStore, broker: Broker, settings: Settings, valkey: Any) -> Iterator[Callable[..., JobRunner]]:
    """`runners(name)` → a job runner without message threads and heartbeat."""
    opened: list[tuple[JournalWriter, redis.Redis]] = []

    def open_runner(name: str = "worker", database: Database | None = None) -> JobRunner:
        client = connect(valkey.url)

        def may_write(job_id: str, attempt: int, claim_id: UUID | None) -> bool:
            with job_store.database.connection() as connection:
                return attempts.may_write(connection, job_id, attempt, claim_id)

        writer = JournalWriter(client, may_write)
        opened.append((writer, client))
        database = database or job_store.database
        return JobRunner(name, settings, database, client, broker, writer, CountingRelay(database, broker))

    yield open_runner
    for writer, client in opened:
        writer.stop()
        client.close()


@pytest.fixture
def runner(runners: Callable[..., JobRunner]) -> JobRunner:
    """A job runner."""
    return runners()

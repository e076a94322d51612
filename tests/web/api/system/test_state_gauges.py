"""Gauges of what all processes share: each shows the state of the rows."""

from types import SimpleNamespace

import pytest
import redis

from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.jobs.workers import register
from models.platform import metrics
from models.platform.errors import Unavailable
from models.platform.exposition import Exposition
from models.platform.redis_memory import Memory
from web.api.system import state_gauges as gauges


@pytest.fixture
def connection(empty_database):
    with empty_database.connection() as connection:
        connection.execute("DELETE FROM workers")
        yield connection


def enqueue_due(connection, seconds, **columns):
    """Enqueue a job that has been due for some seconds."""
    job = NewJob("maintenance.prune", PLATFORM_ACCOUNT)
    enqueue(connection, job)
    connection.execute("UPDATE jobs SET run_at = now() - make_interval(secs => %s) WHERE id = %s", (seconds, job.id))
    for column, value in columns.items():
        connection.execute(f"UPDATE jobs SET {column} = %s WHERE id = %s", (value, job.id))
    return job.id


def test_the_oldest_job_counts_from_the_time_that_it_was_due(connection):
    enqueue_due(connection, 30)
    enqueue_due(connection, 90, published_at="2026-01-01")
    enqueue_due(connection, -60)  # due later

    (age,) = gauges.oldest_jobs(connection).values()

    assert 90 <= age < 100


def test_the_relay_lags_behind_a_job_that_nothing_keeps_from_being_published(connection):
    assert gauges.relay_lag(connection) == {(): 0.0}

    enqueue_due(connection, 45)

    assert 45 <= gauges.relay_lag(connection)[()] < 55


@pytest.mark.parametrize(
    "columns", [{"published_at": "2026-01-01"}, {"blocked": True}, {"crashes": 2}, {"state": "waiting"}]
)
def test_the_relay_does_not_lag_behind_a_job_that_may_not_be_published(connection, columns):
    enqueue_due(connection, 45, **columns)

    assert gauges.relay_lag(connection) == {(): 0.0}


def test_the_relay_does_not_lag_behind_the_window_of_a_lane(connection):
    enqueue_due(connection, 90, published_at="2026-01-01")
    enqueue_due(connection, 45)

    assert gauges.relay_lag(connection) == {(): 0.0}


def test_workers_are_live_or_silent_by_pool(connection):
    # Given a worker of two pools, one with an older heartbeat, and one that is silent
    for name, pools, age in (("a", ["memory", "recall"], 0), ("b", ["memory"], 12), ("c", ["memory"], 40)):
        register(connection, name, host="h", pid=1, pools=pools, threads={"memory": 1})
        connection.execute(
            "UPDATE workers SET seen_at = now() - make_interval(secs => %s) WHERE name = %s", (age, name)
        )
    # Then each counts for its pools, and the oldest heartbeat of the live ones
    assert gauges.count_workers(connection) == {("memory", "live"): 2, ("memory", "silent"): 1, ("recall", "live"): 1}
    ages = gauges.lease_ages(connection)
    assert 12 <= ages[("memory",)] < 22
    assert 0 <= ages[("recall",)] < 10


def test_endpoints_are_counted_by_state(connection):
    # Given an endpoint that works, one whose last request failed, and a disabled one that failed before
    connection.execute("INSERT INTO accounts (id, name) VALUES ('acct_gauges', 'Gauges') ON CONFLICT DO NOTHING")
    for number, (status, since) in enumerate((("enabled", None), ("enabled", "now"), ("disabled", "now"))):
        connection.execute(
            "INSERT INTO webhook_endpoints (id, account_id, url, event_types, endpoint_status, secret, secret_hint,"
            " failing_since) VALUES (%s, 'acct_gauges', 'https://example.com', '{*}', %s, '', '', %s)",
            (f"we_{number}", status, since),
        )
    # Then each counts for its state
    assert gauges.count_endpoints(connection) == {("enabled",): 1, ("failing",): 1, ("disabled",): 1}


def test_memory_of_redis_has_a_limit_only_where_there_is_one(monkeypatch):
    values = []
    for limit in (0, 2048):
        monkeypatch.setattr(gauges, "read_memory", lambda client, limit=limit: Memory(1024, limit))
        values.append(gauges.memory_values(None))

    assert [value[metrics.REDIS_MEMORY] for value in values] == [{(): 1024}] * 2
    assert [value[metrics.REDIS_MEMORY_LIMIT] for value in values] == [{}, {(): 2048}]


def test_a_scrape_waits_once_and_shortly_for_servers_that_are_away():
    # Given a database without a free connection, and a Redis that accepts none
    waits = []

    class Away:
        def connection(self, *, wait):
            waits.append(wait)
            raise Unavailable("away")

    exposition = Exposition()
    gauges.install(SimpleNamespace(database=Away(), redis=redis.Redis(port=1), metrics=exposition))
    # When the metrics are scraped
    text = exposition.render()[0].decode()
    # Then the rows were asked for once, and the metrics of the process are there
    assert waits == [gauges.WAIT]
    assert "process_cpu_seconds_total" in text
    assert "sangha_jobs{" not in text
    assert "\nsangha_redis_memory_bytes " not in text

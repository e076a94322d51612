"""Liveness, readiness and metrics."""

import logging
import threading
from datetime import UTC, datetime, timedelta

import pytest

from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.platform import metrics
from models.platform.errors import Unavailable
from models.platform.ids import new_id
from models.platform.metrics import REGISTRY
from models.serving.served_models import ModelDescription, ServedModel, ServedModels
from models.serving.state import ServingState
from web.access.rights import Rights
from web.api.routing import Route
from web.api.system import probes
from web.api.system.checks import check_release
from web.api.system.state_gauges import read_all
from web.app import build

ROUTES = (
    Route("GET", "/healthz", probes.healthz, Rights.PUBLIC),
    Route("GET", "/readyz", probes.readyz, Rights.PUBLIC),
    Route("GET", "/metrics", probes.metrics, Rights.PUBLIC),
)


@pytest.fixture
def client(make_client):
    client = make_client(*ROUTES)
    client.app.state.platform.checks.clear()
    return client


def test_healthz_succeeds_without_any_server(make_client):
    assert make_client(*ROUTES).get("/healthz").json() == {"status": "ok"}


def test_readyz_reports_each_check_by_name(client):
    def fail():
        raise Unavailable("The queue is down.")

    client.app.state.platform.checks.update(queue=fail, database=lambda: None)

    response = client.get("/readyz")

    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["checks"] == {"queue": "The queue is down.", "database": "ok"}


def test_readyz_reports_other_errors_only_by_their_type(client):
    def fail():
        raise ConnectionError("redis://user:password@host")

    client.app.state.platform.checks.update(redis=fail)

    assert client.get("/readyz").json()["checks"] == {"redis": "ConnectionError"}


def test_readyz_does_not_wait_for_a_hanging_check(client, monkeypatch):
    monkeypatch.setattr(probes, "TIMEOUT", 0.05)
    released = threading.Event()
    client.app.state.platform.checks.update(database=released.wait)

    response = client.get("/readyz")
    released.set()

    assert response.json()["checks"] == {"database": "no response within 0.05 s"}


def test_facts_do_not_affect_readiness(client):
    client.app.state.platform.facts.update(workers=lambda: {"inference": 0})

    response = client.get("/readyz")

    assert (response.status_code, response.json()["workers"]) == (200, {"inference": 0})


def test_readyz_names_unserved_models_and_open_breakers(settings, database, serve):
    app = build(settings)
    client = serve(app)
    model = ServedModel("small", ModelDescription("small"), "inference")
    app.state.platform.serving.state = lambda: ServingState(ServedModels([model], model))
    endpoint = new_id("groq")
    with database.connection() as connection:
        connection.execute("INSERT INTO circuit_breakers (upstream, breaker_state) VALUES (%s, 'open')", (endpoint,))

    response = client.get("/readyz")
    with database.connection() as connection:
        connection.execute("DELETE FROM circuit_breakers WHERE upstream = %s", (endpoint,))

    assert response.status_code == 200
    assert response.json()["unserved_models"] == ["small"]
    assert endpoint in response.json()["open_breakers"]


def test_requests_are_counted_by_route(client):
    # Given what this process has counted so far
    counted = [request_count("/healthz", 200), request_count("unmatched", 404)]
    # When a route and an unknown path are requested
    client.get("/healthz")
    client.get("/no/such/path")
    # Then each is counted once, by its place in the route table
    assert [request_count("/healthz", 200), request_count("unmatched", 404)] == [count + 1 for count in counted]
    client.app.state.platform.database.close()  # otherwise the gauge of jobs would wait for it
    text = client.get("/metrics").text
    assert 'sangha_http_requests_total{method="GET",route="unmatched",status="404"}' in text
    assert 'sangha_http_request_duration_seconds_count{method="GET",route="/healthz"}' in text
    assert "sangha_open_streams 0.0" in text


def request_count(route: str, status: int) -> float:
    """Return the number of requests that this process has answered."""
    labels = {"route": route, "method": "GET", "status": str(status)}
    return REGISTRY.get_sample_value("sangha_http_requests_total", labels) or 0


def test_readyz_succeeds_with_running_servers(settings, database, serve):
    response = serve(build(settings)).get("/readyz")

    assert response.status_code == 200, response.text
    checks = response.json()["checks"]
    assert {checks[name] for name in ("database", "migrations", "release", "redis")} == {"ok"}


def test_readyz_fails_in_a_process_that_is_too_old_for_the_database(client, empty_database):
    """It would misread what later releases write, so no request may reach it."""
    with empty_database.connection() as connection:
        connection.execute("UPDATE schema_compatibility SET oldest_code = '9000'")
    client.app.state.platform.checks["release"] = lambda: check_release(empty_database)

    response = client.get("/readyz")

    assert response.status_code == 503
    assert response.json()["checks"]["release"].startswith("The database needs schema version 9000 or later")


def test_jobs_are_counted_by_queue_kind_and_state(empty_database):
    # Given jobs that are due, and one that is due later
    later = datetime.now(UTC) + timedelta(hours=1)
    with empty_database.transaction() as connection:
        for run_at in (None, None, later):
            enqueue(connection, NewJob("maintenance.prune", PLATFORM_ACCOUNT, run_at=run_at))
        connection.execute("UPDATE jobs SET state = 'scheduled' WHERE run_at > now()")
    # Then each is in one of the gauges
    values = read_all(empty_database)
    assert values[metrics.JOBS] == {("maintenance", "maintenance.prune", "queued"): 2}
    assert values[metrics.SCHEDULED_JOBS] == {(): 1}


def test_metrics_are_served_without_jobs_while_the_database_is_unavailable(client, caplog):
    # Given a database that does not respond
    caplog.set_level(logging.WARNING)
    client.app.state.platform.database.close()
    # When the metrics are requested twice
    texts = [client.get("/metrics").text for _ in range(2)]
    # Then the others are served, and the database was asked once for all gauges
    assert all("sangha_open_streams 0.0" in text and "sangha_jobs{" not in text for text in texts)
    assert caplog.text.count("Cannot read jobs, workers and promises for the metrics") == 1

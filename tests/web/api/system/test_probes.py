"""Given parts that work, fail or hang, when the process is asked, then it tells each one's state in a bounded time."""

import threading

import pytest

from models.platform.errors import Unavailable
from web.access.rights import Rights
from web.api.routing import Route
from web.api.system import probes
from web.api.system.checks import count_jobs
from web.app import build

ROWS = (
    Route("GET", "/healthz", probes.healthz, Rights.PUBLIC),
    Route("GET", "/readyz", probes.readyz, Rights.PUBLIC),
    Route("GET", "/metrics", probes.metrics, Rights.PUBLIC),
)


@pytest.fixture
def client(make_client):
    client = make_client(*ROWS)
    client.app.state.platform.checks.clear()
    return client


def test_the_process_lives_whatever_else_does_not(make_client):
    assert make_client(*ROWS).get("/healthz").json() == {"status": "ok"}


def test_each_part_is_named(client):
    def down():
        raise Unavailable("The queue is down.")

    client.app.state.platform.checks.update(queue=down, database=lambda: None)

    response = client.get("/readyz")

    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["checks"] == {"queue": "The queue is down.", "database": "ok"}


def test_foreign_errors_tell_only_their_kind(client):
    def down():
        raise ConnectionError("redis://user:password@host")

    client.app.state.platform.checks.update(redis=down)

    assert client.get("/readyz").json()["checks"] == {"redis": "ConnectionError"}


def test_a_part_that_hangs_is_not_waited_for(client, monkeypatch):
    monkeypatch.setattr(probes, "TIMEOUT", 0.05)
    released = threading.Event()
    client.app.state.platform.checks.update(database=released.wait)

    response = client.get("/readyz")
    released.set()

    assert response.json()["checks"] == {"database": "no response within 0.05 s"}


def test_facts_decide_nothing(client):
    client.app.state.platform.facts.update(workers=lambda: {"inference": 0})

    response = client.get("/readyz")

    assert (response.status_code, response.json()["workers"]) == (200, {"inference": 0})


def test_requests_are_counted_by_route(client):
    client.get("/healthz")
    client.get("/no/such/address")
    client.app.state.platform.database.close()  # or the gauge of jobs would wait for it

    text = client.get("/metrics").text

    assert 'sangha_http_requests_total{method="GET",route="/healthz",status="200"} 1.0' in text
    assert 'sangha_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'sangha_http_request_seconds_count{method="GET",route="/healthz"} 1.0' in text
    assert "sangha_open_streams 0.0" in text


def test_with_servers_everything_is_ready(settings, database, serve):
    response = serve(build(settings)).get("/readyz")

    assert response.status_code == 200, response.text
    checks = response.json()["checks"]
    assert {checks["database"], checks["migrations"], checks["redis"]} == {"ok"}


def test_jobs_are_counted(database):
    assert isinstance(count_jobs(database), dict)

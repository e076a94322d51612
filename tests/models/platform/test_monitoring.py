"""Metrics and health over HTTP: addresses, the token, the answers of probes, and what a client may do."""

import http.client
import os
import socket

import httpx
import pytest

from models.platform.errors import ConfigurationError
from models.platform.exposition import Exposition
from models.platform.metrics import ScrapedMetric
from models.platform.monitoring import MonitoringServer, socket_path
from models.platform.settings import Settings

TOKEN = "a-token-of-24-characters"


class Health:
    """A process with given problems."""

    def __init__(self, live=(), ready=()):
        self.problems = {"live": list(live), "ready": list(ready)}

    def live(self):
        return self.problems["live"]

    def ready(self):
        return self.problems["ready"]


@pytest.fixture
def address():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def serve(address, tmp_path):
    """`serve(health, **settings)` → a client of the server."""
    servers = []

    def serve(health=None, **settings):
        exposition = Exposition()
        exposition.read(ScrapedMetric("sangha_test", "A value"), lambda: {(): 7})
        settings = Settings(data_dir=tmp_path, metrics_address=address, **settings)
        servers.append(MonitoringServer(settings, exposition.render, health).start())
        return httpx.Client(base_url=f"http://{address}")

    yield serve
    for server in servers:
        server.stop()


def test_metrics_are_served_at_an_address_of_their_own(serve):
    response = serve().get("/metrics")

    assert "sangha_test 7.0\n" in response.text
    assert response.headers["content-type"].startswith("text/plain; version=")


def test_metrics_are_openmetrics_for_a_scraper_that_asks_for_it(serve):
    response = serve().get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})

    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert response.text.endswith("# EOF\n")


@pytest.mark.parametrize("authorization", [None, "Bearer another", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"])
def test_metrics_need_the_token_and_probes_do_not(serve, authorization):
    client = serve(Health(), metrics_token=TOKEN)
    headers = {} if authorization is None else {"authorization": authorization.encode()}

    response = client.get("/metrics", headers=headers)

    assert (response.status_code, response.text) == (401, "")
    assert response.headers["www-authenticate"] == "Bearer"
    assert client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.get("/healthz").status_code == 200


def test_probes_have_the_status_and_the_problems_of_the_process(serve):
    client = serve(Health(live=["the thread relay has ended"], ready=["the engine is being loaded"]))

    live, ready = client.get("/healthz"), client.get("/readyz")

    assert (live.status_code, live.json()) == (503, {"status": "not ok", "problems": ["the thread relay has ended"]})
    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")


def test_probes_of_a_healthy_process_are_ok(serve):
    client = serve(Health())

    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/", "/metricsx", "/healthz", "/v1/me"])
def test_other_paths_are_not_found(serve, path):
    assert serve().get(path).status_code == 404


def test_more_requests_than_threads_are_closed_and_later_ones_are_answered(serve, address, monkeypatch):
    # Given a server of one thread, and a client that does not send its request
    monkeypatch.setattr("models.platform.monitoring.MAX_REQUESTS", 1)
    client = serve()
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as silent:
        silent.sendall(b"GET /metrics HTTP/1.1\r\n")
        # When another one sends a request, then it is closed
        with pytest.raises(httpx.TransportError):
            client.get("/metrics")
        silent.sendall(b"\r\n")
        assert silent.recv(100).startswith(b"HTTP/1.0 200 OK")
        while silent.recv(10_000):
            pass
    # Then the next one is answered
    with httpx.Client(base_url=client.base_url, transport=httpx.HTTPTransport(retries=5)) as later:
        assert later.get("/metrics").status_code == 200


def test_an_occupied_address_is_reported_in_one_line(address, tmp_path):
    host, port = address.split(":")
    with socket.create_server((host, int(port))):
        server = MonitoringServer(Settings(data_dir=tmp_path, metrics_address=address), Exposition().render)

        with pytest.raises(ConfigurationError, match=f"SANGHA_METRICS_ADDRESS is {address}: Address already in use"):
            server.start()


@pytest.mark.parametrize("supervised", [True, False])
def test_a_socket_is_served_only_beside_the_pid_files_of_sangha_up(tmp_path, supervised):
    # Given a data folder, with the folder of pid files that `sangha up` makes, and a socket of an earlier process
    settings = Settings(data_dir=tmp_path)
    path = socket_path(settings, os.getpid())
    if supervised:
        path.parent.mkdir()
        path.touch()
    # When a process starts
    server = MonitoringServer(settings, Exposition().render).start()
    # Then its metrics are at a socket until it stops
    assert path.is_socket() == supervised
    if supervised:
        connection = http.client.HTTPConnection("sangha")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("GET", "/metrics")
        assert b"process_cpu_seconds_total" in connection.getresponse().read()
        connection.close()
    server.stop()
    assert not path.exists()

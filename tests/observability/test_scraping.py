"""A Prometheus scrapes a running installation, and each panel of the overview shows data under load."""

import json
import math
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from bench.harness.waiting import wait_until
from tests.ops.installation import Up

pytestmark = pytest.mark.timeout(180)

FOLDER = Path(__file__).parents[2] / "observability"
OVERVIEW = json.loads((FOLDER / "grafana" / "dashboards" / "overview.json").read_text())


class Prometheus:
    """A private Prometheus that scrapes an installation. While a process is frozen, a scrape takes 2 s."""

    def __init__(self, folder: Path, target: str) -> None:
        config = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "3s", "scrape_timeout": "3s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(FOLDER / "prometheus" / "rules" / "*.yml")]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        del config["alerting"]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        address = f"127.0.0.1:{free_port()}"
        options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
        with (folder / "prometheus.log").open("w") as log:
            self.process = subprocess.Popen(
                ["prometheus", *options, f"--web.listen-address={address}"], stdout=log, stderr=log
            )
        self.client = httpx.Client(base_url=f"http://{address}/api/v1", timeout=10)

    def values(self, query: str) -> list[float]:
        """Return the values of a query that are numbers; none while Prometheus starts."""
        try:
            answer = self.client.get("/query", params={"query": query}).raise_for_status().json()
        except httpx.HTTPError:
            return []
        values = [float(sample["value"][1]) for sample in answer["data"]["result"]]
        return [value for value in values if not math.isnan(value)]

    def rules(self) -> list[dict]:
        """Return the rules with their state."""
        groups = self.client.get("/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path / "data").wait_ready()
    yield up
    up.stop()


@pytest.fixture
def caller(up: Up) -> Iterator[httpx.Client]:
    """A client with an account of its own."""
    with httpx.Client(base_url=up.address, timeout=60) as client:
        account = {"email": f"w-{os.urandom(6).hex()}@example.com", "password": "correct horse battery staple"}
        client.headers["Authorization"] = f"Bearer {client.post('/signup', json=account).json()['token']}"
        yield client


@pytest.fixture
def prometheus(up: Up, tmp_path: Path) -> Iterator[Prometheus]:
    prometheus = Prometheus(tmp_path, up.address.removeprefix("http://"))
    yield prometheus
    prometheus.stop()


def test_each_panel_of_the_overview_has_data_under_load(up: Up, caller: httpx.Client, prometheus: Prometheus) -> None:
    queries = {
        target["expr"].replace("$__rate_interval", "1m") for panel in OVERVIEW["panels"] for target in panel["targets"]
    }
    waiting = "max by (queue) (sangha_oldest_job_seconds)"
    assert waiting in queries
    wait_until(lambda: prometheus.values("sangha_build_info"), 60, what="a scrape")

    # When turns run
    for query in sorted(queries - {waiting}):
        # Then the panel has values
        wait_until(lambda query=query: run_turn(caller) and prometheus.values(query), 60, interval=0.2, what=query)

    # When a turn has to wait, because its worker is frozen
    worker = up.pids()["worker-inference"]
    os.kill(worker, signal.SIGSTOP)
    try:
        run_turn(caller, background=True)
        # Then its age is seen
        wait_until(lambda: prometheus.values(waiting), 20, what=waiting)
    finally:
        os.kill(worker, signal.SIGCONT)

    # And Prometheus could evaluate each rule, and no promise is broken
    wait_until(lambda: {rule["health"] for rule in prometheus.rules()} == {"ok"}, what="each rule to be evaluated")
    assert not [rule["name"] for rule in prometheus.rules() if rule.get("state") == "firing"]


def run_turn(caller: httpx.Client, *, background: bool = False) -> bool:
    """Run a turn, or start it in the background."""
    body = {"model": "default", "input": "Hello", "background": background}
    return caller.post("/v1/responses", json=body).raise_for_status().is_success


def free_port() -> int:
    """Return a port that is free at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])

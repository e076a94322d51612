"""The commands of the chart run with the variables of its containers, answer its probes, and stop within its grace."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from bench.harness.waiting import wait_until
from models.platform.settings import Settings, variable_name
from tests.databases import bare_database
from tests.k8s.helm import render
from tests.k8s.pods import component, environment, own_containers

SANGHA = Path(sys.executable).parent / "sangha"

#: Seconds that a process may take to start on a busy machine.
PATIENCE = 120

VALUES = {
    "existingSecret": "sangha",
    "autoscaling": {"enabled": True},  # so that workers write into their pods
    "settings": {"SANGHA_OBJECT_STORE": "/objects", "SANGHA_ENGINE": "scripted"},
    "models": {"default": {"name": "scripted"}},
    "workers": {
        "light": {"pools": ["tools", "delivery", "billing", "maintenance"]},
        **{
            name: {"enabled": False}
            for name in ("recall", "tools", "memory", "billing", "reporting", "delivery", "maintenance")
        },
    },
}


@pytest.fixture
def rendered():
    """The chart with a scripted model, and one worker for some pools."""
    return render(VALUES)


@pytest.fixture
def own_environment(postgres, valkey, tmp_path):
    """What replaces the addresses and folders of containers: those of this machine, with a database of its own."""
    with bare_database(postgres) as dsn:
        yield {
            "SANGHA_DATABASE_URL": dsn,
            "SANGHA_REDIS_URL": valkey.url,
            "SANGHA_SECRET_KEY": "a-key-of-sixteen-characters",
            "SANGHA_DATA_DIR": str(tmp_path / "data"),
            "SANGHA_OBJECT_STORE": str(tmp_path / "objects"),
            "SANGHA_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(free_port()),
        }


def free_port():
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Container:
    """A container as a process. Its ports are others than the pod's."""

    def __init__(self, rendered, container, own_environment, log):
        self.container, self.log = container, log
        self.ports = {port["name"]: free_port() for port in container.get("ports", [])}
        known = {variable_name(field) for field in Settings.model_fields}
        outside = {name: value for name, value in os.environ.items() if name not in known}
        variables = environment(rendered, container) | own_environment
        if self.ports:
            variables["SANGHA_METRICS_ADDRESS"] = f"127.0.0.1:{self.ports['metrics']}"
            variables["SANGHA_PORT"] = str(self.ports.get("http", 0))
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [SANGHA, *container["args"]], env=outside | variables, stdout=file, stderr=file
            )

    def answers(self, probe):
        """Return whether a probe succeeds, as the kubelet sees it. Raises AssertionError if the process has ended."""
        assert self.process.poll() is None, self.log.read_text()
        request = self.container[probe]["httpGet"]
        try:
            url = f"http://127.0.0.1:{self.ports[request['port']]}{request['path']}"
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.status == 200
        except OSError:
            return False

    def stop(self):
        """Send TERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def start(rendered, own_environment, tmp_path):
    """Starts a container; those that still run are killed at the end."""
    started = []

    def start(container):
        started.append(Container(rendered, container, own_environment, tmp_path / f"{len(started)}.log"))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def containers_of(rendered, *components):
    return [container for pod, container in own_containers(rendered) if component(pod) in components]


def test_an_installation_migrates_starts_and_stops_as_the_chart_says(rendered, start):
    # Given an empty database, which the hook checks and migrates
    for container in containers_of(rendered, "migrate"):
        job = start(container)
        assert job.process.wait(PATIENCE) == 0, job.log.read_text()

    # When all processes start
    processes = [start(each) for each in containers_of(rendered, "web", "worker", "scheduler")]
    assert [each.container["args"][0] for each in processes].count("worker") == 2
    for process in processes:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            wait_until(lambda process=process, probe=probe: process.answers(probe), timeout=PATIENCE)

    # Then each has metrics where the chart looks for them, and writes JSON lines
    for process in processes:
        with urllib.request.urlopen(f"http://127.0.0.1:{process.ports['metrics']}/metrics", timeout=10) as response:
            assert re.search(rb"^sangha_|^process_", response.read(), re.MULTILINE)
        assert process.log.read_text().startswith('{"@timestamp"')

    # And each stops on TERM, without the kubelet's KILL
    assert {process.stop() for process in processes} == {0}


def test_an_upgrade_that_does_not_fit_stops_at_its_check(rendered, start, own_environment):
    # Given a database that cannot be reached
    own_environment["SANGHA_DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/none"
    check, _ = containers_of(rendered, "migrate")

    # Then the check fails, so that no migration and no pod follows
    assert start(check).process.wait(PATIENCE) != 0

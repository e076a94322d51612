"""`sangha up` as its user sees it: the first call, services killed one by one, Ctrl-C."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from bench.harness.waiting import wait_until
from tests.ops.installation import Up
from tests.ops.scripts import has_exited

pytestmark = pytest.mark.timeout(180)

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"

SERVICES = {"postgres", "valkey", "worker-inference", "worker-light", "web", "scheduler"}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path / "data").wait_ready()
    yield up
    if up.process.poll() is None:
        up.stop()


def test_printed_first_call_works_repeatedly(up: Up) -> None:
    # Given the commands that `up` prints
    text = up.text
    commands = text[text.index("TOKEN=$(") :].replace("The same with the OpenAI client, after the lines above:", "")
    for _ in range(2):
        # When they are pasted into a shell
        shell = subprocess.run(["sh"], input=commands, capture_output=True, text=True, timeout=60, check=False)
        # Then both clients stream the answer
        assert "event: response.completed" in shell.stdout, shell.stderr
        assert shell.stdout.rstrip().endswith("w18 w19"), shell.stderr


def test_every_killed_service_is_restarted(up: Up) -> None:
    assert up.pids().keys() == SERVICES
    for name in sorted(SERVICES):
        # Given a working installation
        pids = up.pids()
        # When a service is killed
        os.kill(pids[name], signal.SIGKILL)
        # Then it is restarted, and a turn runs
        wait_until(lambda pids=pids, name=name: up.pids().get(name, pids[name]) != pids[name])
        wait_until(up.works)
        assert f"{name} exited (killed by SIGKILL): restarting" in up.text
    assert up.pids().keys() == SERVICES


def test_metrics_of_all_processes_are_one_target(up: Up) -> None:
    # Given a turn, and a process that was restarted
    assert up.works()
    pids = up.pids()
    os.kill(pids["scheduler"], signal.SIGKILL)
    wait_until(lambda: up.pids().get("scheduler", pids["scheduler"]) != pids["scheduler"])
    # When the web process is scraped
    wait_until(lambda: {"supervisor", "scheduler"} <= processes_of(metrics(up)["sangha_build_info"]))
    families = metrics(up)
    # Then the samples of each process have its name
    own = SERVICES - {"postgres", "valkey"}
    assert processes_of(families["process_resident_memory_bytes"]) == {*own, "supervisor"}
    ended = [sample for sample in families["sangha_turn_duration_seconds"].samples if sample.name.endswith("_count")]
    assert [(sample.labels["process"], sample.value) for sample in ended] == [("worker-inference", 1)]
    restarts = {sample.labels["process"]: sample.value for sample in families["sangha_process_restarts"].samples}
    assert restarts["scheduler"] == 1
    assert restarts["web"] == 0


def test_every_metric_is_documented_and_exported_by_the_rules_of_prometheus(up: Up) -> None:
    # Given the names in the reference, and those of a running installation
    assert up.works()
    documented = set(re.findall(r"^\| `(sangha_\w+)`", REFERENCE.read_text(), re.MULTILINE))
    wait_until(lambda: 'process="scheduler"' in metrics_text(up))
    text = metrics_text(up)
    # Then both are the same
    assert set(re.findall(r"^# TYPE (sangha_\w+)", text, re.MULTILINE)) == documented
    # And promtool finds nothing wrong
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def metrics_text(up: Up) -> str:
    """Return what a scrape reads."""
    return httpx.get(f"{up.address}/metrics").text


def metrics(up: Up) -> dict[str, Metric]:
    """Return the metrics by their names."""
    return {family.name: family for family in text_string_to_metric_families(metrics_text(up))}


def processes_of(family: Metric) -> set[str]:
    """Return the processes that a metric has samples of."""
    return {sample.labels["process"] for sample in family.samples}


def test_ctrl_c_stops_every_process_and_the_next_start_has_the_data(tmp_path: Path) -> None:
    # Given a running installation with an account
    first = Up(tmp_path / "data").wait_ready()
    credentials = {"email": "me@example.com", "password": "correct horse battery staple"}
    assert httpx.post(f"{first.address}/signup", json=credentials).status_code == 201
    children = psutil.Process(first.process.pid).children(recursive=True)
    # When it is interrupted by Ctrl-C
    code = first.stop()
    # Then it exits with 0 and leaves no process and no pid file
    assert code == 0, first.text
    assert all(has_exited(process.pid) for process in children)
    assert not list((tmp_path / "data" / "run").glob("*"))
    # And the next installation has the account
    second = Up(tmp_path / "data").wait_ready()
    try:
        assert httpx.post(f"{second.address}/login", json=credentials).status_code == 200
    finally:
        second.stop()


def test_every_process_exits_when_up_is_killed(tmp_path: Path) -> None:
    # Given a running installation
    first = Up(tmp_path / "data").wait_ready()
    children = psutil.Process(first.process.pid).children(recursive=True)
    # When the supervisor is killed
    first.process.kill()
    first.process.wait()
    # Then every process exits
    wait_until(lambda: all(has_exited(process.pid) for process in children))
    # And the next installation works
    second = Up(tmp_path / "data").wait_ready()
    try:
        assert second.works()
    finally:
        second.stop()


def test_missing_model_ends_up_with_an_error_that_names_the_setting(tmp_path: Path) -> None:
    # Given a model that does not exist, when it starts
    up = Up(tmp_path / "data", SANGHA_ENGINE="llamacpp", SANGHA_MODEL="/nowhere/model.gguf")
    # Then the error names the setting, and no pid file is left
    assert up.process.wait(60) == 2
    [line] = [line for line in up.text.splitlines() if line.startswith("sangha: ")]
    assert "SANGHA_MODEL is '/nowhere/model.gguf'" in line
    assert not list((tmp_path / "data" / "run").glob("*"))

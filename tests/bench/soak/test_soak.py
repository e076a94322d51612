"""The command, run for a few seconds, and its report.

Given a stack, when it is loaded with operations of all kinds and its rows are aged, then each answer is correct, each
job ends, the pruning leaves nothing, and there is a picture.
"""

import re
import subprocess
import sys
from itertools import pairwise

import orjson
import pytest
from click.testing import CliRunner

from bench import machine
from bench.harness import stack
from bench.soak.__main__ import main
from bench.soak.monitor import kind_of
from bench.soak.open_loop import OperationLog
from bench.soak.picture import LABEL_DISTANCE, draw, spread
from bench.soak.report import SoakReport, quantity
from bench.soak.retention import KEPT, LEFT_OVER, NAMES, Retention
from models.platform.errors import ConfigurationError


def test_a_short_soak_finds_no_failure(tmp_path):
    files = ["--picture", tmp_path / "soak.png", "--json", tmp_path / "soak.json"]
    command = [sys.executable, "-m", "bench.soak", "--minutes", "0.06", "--rate", "12", "--broker", "redis", *files]

    done = subprocess.run(command, capture_output=True, text=True, timeout=110)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOTHING FAILED" in done.stdout
    written = orjson.loads((tmp_path / "soak.json").read_bytes())
    assert (written["faults"], written["retention"]["unfinished"]) == ([], 0)
    assert sum(written["done"].values()) >= 30
    assert {"memory", "threads", "connections", "jobs", "queues", "keys", "tables"} <= {
        s["watched"] for s in written["series"]
    }
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


def report(seconds=600, leak=0.0, step=0.0, **more):
    made = SoakReport(machine.describe(), "redis", seconds / 60, 1, 10.0, operations=OperationLog(), **more)
    for second in range(seconds):
        made.series.add(second, second * 10, {("memory", "web"): 100e6 + leak * second + step * (second > seconds / 2)})
        made.series.add(second, second * 10, {("latency", "end, median"): 0.2 + second / 1000})
    return made


def test_a_leak_is_reported_by_its_series():
    leaking = report(leak=20_000)

    assert not leaking.steady
    assert leaking.headline() == "GROWING: Memory of Sangha, unshared, web"
    assert leaking.json()["growing"] == ["Memory of Sangha, unshared, web"]


def test_a_run_without_growth_is_steady():
    assert report(step=20e6).headline() == "STEADY"


def test_a_failed_operation_is_reported_in_a_steady_run():
    failing = report()
    failing.operations.fail("turn", ValueError("no text"))

    assert failing.headline() == "FAILED: 1 of turn failed"
    assert "turn: ValueError: no text" in failing.text()


@pytest.mark.parametrize("result", [Retention(2, {}, {}), Retention(0, {"sessions": 5}, {"firings": 3})])
def test_rows_that_the_pruning_leaves_are_a_fault(result):
    assert not report(retention=result).steady


def test_an_interrupted_run_has_a_picture(tmp_path):
    draw(report(seconds=3), tmp_path / "soak.png")

    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


def test_labels_are_moved_apart_and_keep_their_order():
    placed = spread([0.0, 0.0, 0.01, 0.5, 0.99, 1.0, 1.0])

    assert placed == sorted(placed)
    assert all(after - before >= LABEL_DISTANCE - 1e-9 for before, after in pairwise(placed))
    assert placed[-1] <= 1.0


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(1536, "bytes", "1.5 KiB"), (-3 * 2**20, "bytes", "-3 MiB"), (0.25, "s", "0.25 s"), (12345, "keys", "12,345")],
)
def test_quantities_are_short(value, unit, text):
    assert quantity(value, unit) == text


@pytest.mark.parametrize(
    ("key", "lifetime", "kind"),
    [
        (b"sangha:journal:job_1", 100, "journals of ended jobs"),
        (b"sangha:events:job_1", 80_000, "journals of unfinished jobs"),
        (b"sangha:journal:job_1", -1, "that never expire"),
        (b"sangha:limit:account", 30, "others that expire"),
    ],
)
def test_the_kind_of_a_key_follows_from_its_name_and_lifetime(key, lifetime, kind):
    assert kind_of(key, lifetime) == kind


def test_a_missing_folder_is_rejected_before_anything_starts(tmp_path):
    rejected = CliRunner().invoke(main, ["--picture", str(tmp_path / "nowhere" / "soak.png")])

    assert rejected.exit_code == 2
    assert "There is no folder" in rejected.output


def test_without_rabbitmq_one_line_says_what_to_do(monkeypatch):
    def missing(name):
        raise ConfigurationError("RabbitMQ is missing: install it, on Debian with apt install rabbitmq-server")

    monkeypatch.setattr(stack, "program", missing)

    result = CliRunner().invoke(main, [])

    assert result.exit_code == 2
    assert "--broker redis" in result.output


def test_every_table_is_either_checked_or_kept(database):
    checked = {name for statement in LEFT_OVER.values() for name in re.findall(r"FROM (\w+)", statement)}
    with database.connection() as connection:
        tables = {row["name"] for row in connection.execute(NAMES)}

    assert tables - checked == KEPT

"""The command as somebody runs it, for a few seconds, and what it says of what it read.

Given a stack of its own, when it is loaded with work of all kinds and all is made old then, then each answer was right,
each job ended, nothing outlives the pruning, and there is a picture.
"""

import re
import subprocess
import sys
from itertools import pairwise

import orjson
import pytest
from click.testing import CliRunner

from bench import machine, stack
from bench.soak.__main__ import main
from bench.soak.pace import Ledger
from bench.soak.picture import APART, draw, spread
from bench.soak.report import Report, quantity
from bench.soak.retention import KEPT, LEFT_OVER, NAMES, Retention
from bench.soak.watch import kind_of
from models.platform.errors import ConfigurationError


def test_a_short_soak(tmp_path):
    files = ["--picture", tmp_path / "soak.png", "--json", tmp_path / "soak.json"]
    command = [sys.executable, "-m", "bench.soak", "--minutes", "0.06", "--rate", "12", "--broker", "redis", *files]

    done = subprocess.run(command, capture_output=True, text=True, timeout=110)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOTHING FAILED" in done.stdout
    told = orjson.loads((tmp_path / "soak.json").read_bytes())
    assert (told["faults"], told["retention"]["unfinished"]) == ([], 0)
    assert sum(told["done"].values()) >= 30
    assert {"memory", "threads", "connections", "jobs", "queues", "keys", "tables"} <= {
        s["watched"] for s in told["series"]
    }
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


def report(seconds=600, leak=0.0, step=0.0, **more):
    made = Report(machine.look(), "redis", seconds / 60, 1, 10.0, ledger=Ledger(), **more)
    for second in range(seconds):
        made.records.add(
            second, second * 10, {("memory", "web"): 100e6 + leak * second + step * (second > seconds / 2)}
        )
        made.records.add(second, second * 10, {("latency", "end, median"): 0.2 + second / 1000})
    return made


def test_a_leak_is_named():
    leaking = report(leak=20_000)

    assert not leaking.steady
    assert leaking.headline() == "GROWING: Memory of ours, unshared, web"
    assert leaking.json()["growing"] == ["Memory of ours, unshared, web"]


def test_what_is_steady_is_called_so():
    assert report(step=20e6).headline() == "STEADY"


def test_failed_work_is_named_however_steady_all_is():
    failing = report()
    failing.ledger.fail("turn", ValueError("no text"))

    assert failing.headline() == "FAILED: 1 of turn failed"
    assert "turn: ValueError: no text" in failing.text()


@pytest.mark.parametrize("found", [Retention(2, {}, {}), Retention(0, {"sessions": 5}, {"firings": 3})])
def test_what_stays_for_ever_is_a_fault(found):
    assert not report(retention=found).steady


def test_the_picture_of_an_interrupted_run(tmp_path):
    draw(report(seconds=3), tmp_path / "soak.png")

    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


def test_names_are_moved_apart_and_stay_in_order():
    placed = spread([0.0, 0.0, 0.01, 0.5, 0.99, 1.0, 1.0])

    assert placed == sorted(placed)
    assert all(after - before >= APART - 1e-9 for before, after in pairwise(placed))
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
def test_a_key_is_known_by_its_name_and_its_time(key, lifetime, kind):
    assert kind_of(key, lifetime) == kind


def test_a_folder_that_is_not_there_is_told_before_anything_starts(tmp_path):
    refused = CliRunner().invoke(main, ["--picture", str(tmp_path / "nowhere" / "soak.png")])

    assert refused.exit_code == 2
    assert "There is no folder" in refused.output


def test_without_rabbitmq_one_line_says_what_to_do(monkeypatch):
    def missing(name):
        raise ConfigurationError("RabbitMQ is missing: install it, on Debian with apt install rabbitmq-server")

    monkeypatch.setattr(stack, "program", missing)

    told = CliRunner().invoke(main, [])

    assert told.exit_code == 2
    assert "--broker redis" in told.output


def test_of_each_table_it_is_known_what_stays_in_it(database):
    looked_at = {name for statement in LEFT_OVER.values() for name in re.findall(r"FROM (\w+)", statement)}
    with database.connection() as connection:
        tables = {row["name"] for row in connection.execute(NAMES)}

    assert tables - looked_at == KEPT

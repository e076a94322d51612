"""The table of the measurements, and its JSON."""

from datetime import UTC, datetime

import orjson
import pytest

from bench.figures import Figure, at_least, at_most
from bench.machine import Machine, describe
from bench.table import BenchReport, number, quantity, row


@pytest.fixture
def report() -> BenchReport:
    machine = Machine("A processor", 2, 8_000_000_000, "Linux 6", "3.11.7", "abc1234+", 0.5)
    report = BenchReport(machine, "rabbitmq", datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
    report.figures["first-event"] = [
        Figure("POST → first event, p50", "ms", [4.0, 5.0, 6.0], at_most(10)),
        Figure("turns", "/s", [150.0], at_least(200)),
    ]
    report.failures["recovery"] = "Broken: a turn did not end"
    report.seconds.update({"first-event": 30.0, "recovery": 60.0})
    return report


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.9712, "0.971"), (12.34, "12.3"), (99.96, "100"), (3336.4, "3336"), (-4.5, "-4.5")]
)
def test_numbers_have_three_digits_or_are_whole(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("unit", "text"), [("ms", "5 ms"), ("s", "5 s"), ("/s", "5/s"), ("x", "5x"), ("", "5")])
def test_quantities_show_their_unit(unit, text):
    assert quantity(5, unit) == text


def test_a_row_has_goal_spread_and_verdict():
    figure = Figure("a figure", "ms", [1.0, 2.0, 3.0], at_most(1))

    assert row(figure) == ("a figure", "≤ 1 ms", "2 ms (1.2 … 2.8)", "MISSED")


def test_a_row_without_spread_and_goal_has_empty_cells():
    assert row(Figure("a figure", "", [3.0])) == ("a figure", "", "3", "")


def test_columns_are_aligned(report):
    lines = report.text().splitlines()

    assert len({line.index("POST" if "POST" in line else "turns") for line in lines[5:7]}) == 1
    assert len({line.rindex(verdict) for line, verdict in zip(lines[5:7], ("met", "MISSED"), strict=True)}) == 1


def test_the_table_has_machine_scenarios_and_failures(report):
    lines = report.text().splitlines()

    assert lines[0] == "A processor, 2 cores, 8 GB, Linux 6, Python 3.11.7, commit abc1234+, load 0.5 before"
    assert lines[1] == "2026-01-02 03:04 UTC, 1.5 minutes, queue: rabbitmq"
    assert [line.split()[0] for line in lines[5:7]] == ["first-event", "turns"]
    assert lines[6].endswith("MISSED")
    assert lines[-1] == "recovery FAILED: Broken: a turn did not end"


def test_json_has_every_sample(report):
    parsed = orjson.loads(orjson.dumps(report.json()))

    assert parsed["figures"][0]["samples"] == [4.0, 5.0, 6.0]
    assert parsed["figures"][0]["goal"] == {"limit": 10, "at_least": False}
    assert parsed["figures"][1]["met"] is False
    assert parsed["failures"] == {"recovery": "Broken: a turn did not end"}


def test_this_machine_has_cores_and_memory():
    machine = describe()

    assert machine.cores > 0
    assert machine.memory > 0
    assert machine.commit

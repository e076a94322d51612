"""Given a stack with working clients, when processes are killed and links cut, then no guarantee is violated."""

from pathlib import Path

import orjson
import psutil
import pytest
from click.testing import CliRunner

from bench import machine
from bench.chaos import __main__ as command
from bench.chaos.attacks import ATTACKS
from bench.chaos.report import ChaosReport
from bench.chaos.run import RunOptions, run
from bench.chaos.violations import Violation
from bench.progress import Progress

#: The plan of this seed has four faults within ten seconds.
SHORT = RunOptions(
    seed=2025,
    minutes=0.17,
    broker="rabbitmq",
    only=("kill-worker:inference-a", "kill-web:web-a", "wipe-valkey", "cut-link:all-rabbitmq"),
    attacks=(),
)


@pytest.mark.timeout(600)
def test_a_short_run_has_no_violation():
    report = ChaosReport(machine.describe(), SHORT.broker, SHORT.seed, SHORT.minutes, SHORT.command)
    before = set(psutil.Process().children(recursive=True))

    run(SHORT, report, Progress())

    assert not report.violations, report.text()
    assert {fault.name for fault in report.injected} == set(SHORT.faults())
    assert report.counts["turns"] > 10
    assert report.counts["reconnects"] > 0
    assert not set(psutil.Process().children(recursive=True)) - before


def test_an_unknown_fault_is_rejected_by_name():
    rejected = CliRunner().invoke(command.main, ["--only", "kill-time"])

    assert rejected.exit_code == 2
    assert "There is no fault 'kill-time'" in rejected.output


def test_the_list_has_all_faults_and_attacks():
    listed = CliRunner().invoke(command.main, ["--list", "--broker", "redis"])

    names = {line.split()[0] for line in listed.output.splitlines()}
    assert names == {*RunOptions(0, 1, "redis").faults(), *ATTACKS}


def test_a_violation_is_reported_with_the_command_that_repeats_the_run(monkeypatch, tmp_path: Path):
    def fake_run(options: RunOptions, report: ChaosReport, progress: Progress) -> None:
        report.violations.append(Violation("numbers", "a turn", "7 follows 5"))

    monkeypatch.setattr(command.run, "run", fake_run)

    result = CliRunner().invoke(
        command.main, ["--seed", "3", "--only", "kill-web", "--json", str(tmp_path / "report.json")]
    )

    assert result.exit_code == 1
    assert "numbers: a turn: 7 follows 5" in result.output
    assert "python -m bench.chaos --seed 3 --minutes 5 --broker rabbitmq --only kill-web" in result.output
    written = orjson.loads((tmp_path / "report.json").read_bytes())
    assert written["violations"] == [{"rule": "numbers", "subject": "a turn", "detail": "7 follows 5"}]

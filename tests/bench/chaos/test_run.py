"""Given a whole stack and clients that work, when parts of it are killed and cut off, then no promise is broken."""

from pathlib import Path

import orjson
import psutil
import pytest
from click.testing import CliRunner

from bench import machine
from bench.chaos import __main__ as command
from bench.chaos.report import Report
from bench.chaos.run import Wanted, run
from bench.chaos.violations import Violation
from bench.progress import Progress

#: Four faults within ten seconds, by the plan of this seed.
SHORT = Wanted(
    seed=2025,
    minutes=0.17,
    broker="rabbitmq",
    only=("kill-worker:inference-a", "kill-web:web-a", "wipe-valkey", "cut-link:all-rabbitmq"),
)


@pytest.mark.timeout(300)
def test_a_short_run_breaks_no_promise():
    report = Report(machine.look(), SHORT.broker, SHORT.seed, SHORT.minutes, SHORT.command)
    before = set(psutil.Process().children(recursive=True))

    run(SHORT, report, Progress())

    assert not report.violations, report.text()
    assert {struck.name for struck in report.struck} == set(SHORT.faults())
    assert report.counts["turns"] > 10
    assert report.counts["reconnects"] > 0
    assert not set(psutil.Process().children(recursive=True)) - before


def test_a_fault_that_is_none_is_refused_by_name():
    refused = CliRunner().invoke(command.main, ["--only", "kill-time"])

    assert refused.exit_code == 2
    assert "There is no fault 'kill-time'" in refused.output


def test_the_list_names_all_faults():
    listed = CliRunner().invoke(command.main, ["--list", "--broker", "redis"])

    assert {line.split()[0] for line in listed.output.splitlines()} == set(Wanted(0, 1, "redis").faults())


def test_what_happened_is_told_with_how_to_do_it_again(monkeypatch, tmp_path: Path):
    def violated(wanted: Wanted, report: Report, progress: Progress) -> None:
        report.violations.append(Violation("numbers", "a turn", "7 follows 5"))

    monkeypatch.setattr(command.run, "run", violated)

    told = CliRunner().invoke(command.main, ["--seed", "3", "--only", "kill-web", "--json", str(tmp_path / "it.json")])

    assert told.exit_code == 1
    assert "numbers: a turn: 7 follows 5" in told.output
    assert "python -m bench.chaos --seed 3 --minutes 4 --broker rabbitmq --only kill-web" in told.output
    written = orjson.loads((tmp_path / "it.json").read_bytes())
    assert written["violations"] == [{"rule": "numbers", "subject": "a turn", "detail": "7 follows 5"}]

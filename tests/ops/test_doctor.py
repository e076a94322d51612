"""The doctor's checks on running and missing servers."""

import os
from pathlib import Path

import pytest

from models.platform.errors import Unavailable
from models.platform.settings import Settings
from ops.doctor.finding import run_check
from ops.doctor.report import print_report
from ops.doctor.servers import broker, redis_server


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SANGHA_")]:
        monkeypatch.delenv(name)


def test_doctor_names_a_remedy_when_nothing_runs(tmp_path: Path) -> None:
    # Given the settings of an installation that is not running
    lines: list[str] = []
    # When the doctor checks it
    healthy = print_report(Settings(data_dir=tmp_path, engine="scripted", port=1), lines.append)
    # Then checks fail, with the command to run
    assert not healthy
    assert any(line.startswith("FAIL Postgres: ") and line.endswith("run `sangha up`") for line in lines)
    assert all(line.startswith(("ok ", "warn ", "FAIL ")) and "\n" not in line for line in lines)


def test_doctor_accepts_running_servers(settings: Settings) -> None:
    assert run_check(redis_server, settings).verdict == "ok"
    assert run_check(broker, settings).verdict == "ok"


def test_doctor_accepts_rabbitmq_with_quorum_queues(settings: Settings, rabbitmq_url: str) -> None:
    finding = run_check(broker, settings.model_copy(update={"broker_url": rabbitmq_url}))
    assert finding.verdict == "ok"
    assert "quorum queues" in finding.detail


def test_doctor_names_an_unreachable_rabbitmq_without_its_password(settings: Settings) -> None:
    finding = run_check(broker, settings.model_copy(update={"broker_url": "amqp://guest:secret@127.0.0.1:1/"}))
    assert finding.verdict == "FAIL"
    assert "127.0.0.1:1" in finding.detail
    assert "secret" not in str(finding)


def test_doctor_reports_an_exception_as_a_finding(settings: Settings) -> None:
    def broken(settings: Settings) -> None:
        raise Unavailable("The server\nis broken")

    finding = run_check(broken, settings)  # type: ignore[arg-type]
    assert str(finding) == "FAIL broken: The server"

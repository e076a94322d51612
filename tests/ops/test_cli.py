"""The command line: quick help, and one line for what the operator can mend."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from models.platform.errors import Unavailable
from models.platform.settings import Settings
from ops import preflight
from ops.cli import main
from ops.doctor.finding import run_check
from ops.doctor.report import print_report
from ops.doctor.servers import broker, redis_server
from ops.up import first_call


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SANGHA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("ops.logs.configure_logging", lambda **_: None)


def sangha(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_every_command_has_help() -> None:
    for name in main.commands:
        answer = sangha(name, "--help")
        assert answer.exit_code == 0
        assert answer.output.startswith("Usage: ")


def test_help_imports_no_pipeline() -> None:
    program = (
        "import sys; from ops.cli import main; main(['--help'], standalone_mode=False);"
        "print([name for name in sys.modules if name.split('.')[0] in ('pydantic', 'pipelines', 'tasks', 'web')])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.endswith("[]\n")


def test_a_malformed_setting_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANGHA_BROKER_URL", "kafka://x")
    for command in (["up"], ["web"], ["worker", "inference"], ["scheduler"], ["migrate"], ["doctor"]):
        answer = sangha(*command)
        assert answer.exit_code == 2
        assert answer.stderr.startswith("sangha: SANGHA_BROKER_URL is 'kafka://x': it should be amqp://… or ")
        assert answer.stderr.count("\n") == 1


def test_a_database_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    answer = sangha("migrate", "--data-dir", str(tmp_path))
    assert answer.exit_code == 1
    assert answer.stderr.startswith("sangha: The database does not answer")
    assert answer.stderr.count("\n") == 1


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    monkeypatch.delitem(sys.modules, "models.platform.settings")
    answer = sangha("migrate")
    assert answer.stderr == "sangha: the Python package pydantic is missing: run `make install`\n"


def test_up_names_a_taken_port_before_it_starts_anything(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = sangha("up", "--port", str(port), "--data-dir", str(tmp_path))
    assert answer.exit_code == 2
    assert answer.stderr == (
        f"sangha: cannot listen on 127.0.0.1:{port} (Address already in use): "
        "choose another port with --port or SANGHA_PORT\n"
    )
    assert not (tmp_path / "postgres").exists()


def test_a_second_up_names_the_first(tmp_path: Path) -> None:
    with preflight.data_folder_lock(tmp_path):
        answer = sangha("up", "--port", "0", "--data-dir", str(tmp_path))
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"sangha: {tmp_path} is in use by another `sangha up` (pid {os.getpid()})")


def test_up_needs_some_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "MIN_FREE_DISK", 1 << 60)
    answer = sangha("up", "--port", "0", "--data-dir", str(tmp_path))
    assert answer.exit_code == 2
    assert "MB free" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_data_folder_that_can_not_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = sangha("up", "--data-dir", str(tmp_path / "file" / "below"))
    assert answer.exit_code == 2
    assert "Not a directory" in answer.stderr


def test_the_first_call_names_the_address_that_this_machine_reaches() -> None:
    assert "http://127.0.0.1:8001/signup" in first_call(Settings(host="0.0.0.0", port=8001))
    assert "http://[::1]:8001/v1" in first_call(Settings(host="::", port=8001))


def test_doctor_says_what_to_do_when_nothing_runs(tmp_path: Path) -> None:
    # Given settings of an installation that isn't running
    said: list[str] = []
    # When the doctor looks at it
    healthy = print_report(Settings(data_dir=tmp_path, engine="scripted", port=1), said.append)
    # Then it fails and names the command
    assert not healthy
    assert any(line.startswith("FAIL Postgres: ") and line.endswith("run `sangha up`") for line in said)
    assert all(line.startswith(("ok ", "warn ", "FAIL ")) and "\n" not in line for line in said)


def test_doctor_finds_the_servers_well(settings: Settings) -> None:
    assert run_check(redis_server, settings).verdict == "ok"
    assert run_check(broker, settings).verdict == "ok"


def test_doctor_finds_rabbitmq_well(settings: Settings, rabbitmq_url: str) -> None:
    finding = run_check(broker, settings.model_copy(update={"broker_url": rabbitmq_url}))
    assert finding.verdict == "ok"
    assert "quorum queues" in finding.detail


def test_doctor_names_a_rabbitmq_that_is_not_there(settings: Settings) -> None:
    finding = run_check(broker, settings.model_copy(update={"broker_url": "amqp://guest:secret@127.0.0.1:1/"}))
    assert finding.verdict == "FAIL"
    assert "127.0.0.1:1" in finding.detail
    assert "secret" not in str(finding)


def test_doctor_survives_what_it_finds(settings: Settings) -> None:
    def broken(settings: Settings) -> None:
        raise Unavailable("The part\nis broken")

    finding = run_check(broken, settings)  # type: ignore[arg-type]
    assert str(finding) == "FAIL broken: The part"

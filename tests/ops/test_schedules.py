"""Given a timetable, then `sangha schedules` shows each entry and the result of its last firing."""

import pytest
from click.testing import CliRunner

from models.platform.database import Database
from ops.cli import main
from scheduler.clock import Clock
from tests.scheduler.test_clock import RecordingQueue


@pytest.fixture
def shown(monkeypatch, empty_database: Database):
    """What the command prints."""
    monkeypatch.setattr("ops.logs.configure_logging", lambda **_: None)
    monkeypatch.setenv("SANGHA_DATABASE_URL", empty_database.dsn)

    def shown(*options: str) -> str:
        answer = CliRunner().invoke(main, ["schedules", *options])
        assert answer.exit_code == 0, answer.output
        return answer.output

    return shown


def test_the_timetable_is_shown(shown, empty_database, settings):
    assert "No schedules" in shown()
    clock = Clock(settings, empty_database, RecordingQueue())
    clock.fire()
    with empty_database.connection() as connection:
        connection.execute("UPDATE schedules SET next_fire_at = now()")
    clock.fire()

    output = shown("--all")

    (line,) = (line for line in output.splitlines() if "maintenance.prune" in line)
    assert "30 3 * * * UTC" in line
    assert line.endswith("queued")

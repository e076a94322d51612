"""Given a timetable, then `sangha schedules` shows it, what came of it, and who leads."""

import os

import pytest
from click.testing import CliRunner

from models.platform.database import Database
from ops.cli import main
from scheduler.clock import Clock
from scheduler.leader import Leadership
from tests.scheduler.test_clock import Told


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


def test_the_timetable_and_its_leader_are_shown(shown, empty_database, settings):
    assert "leader: none" in shown()
    leadership = Leadership(empty_database.dsn)
    clock = Clock(settings, empty_database, Told(), leadership)
    clock.fire()
    with empty_database.connection() as connection:
        connection.execute("UPDATE schedules SET next_fire_at = now()")
    clock.fire()

    output = shown("--all")
    leadership.give_up()

    assert f"leader: {os.getpid()}@" in output
    (line,) = (line for line in output.splitlines() if "maintenance.prune" in line)
    assert "30 3 * * * UTC" in line
    assert line.endswith("queued")

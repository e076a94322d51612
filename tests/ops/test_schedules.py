"""`sangha schedules` shows each entry of the timetable and the result of its last firing."""

from scheduler.clock import Clock
from tests.ops.commands import sangha
from tests.scheduler.test_clock import RecordingQueue


def test_schedules_shows_the_timetable(installation, settings):
    assert "No schedules" in sangha("schedules").output
    clock = Clock(settings, installation, RecordingQueue())
    clock.fire()
    with installation.connection() as connection:
        connection.execute("UPDATE schedules SET next_fire_at = now()")
    clock.fire()

    result = sangha("schedules", "--all")

    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.output.splitlines() if "maintenance.prune" in line)
    assert "30 3 * * * UTC" in line
    assert line.endswith("queued")

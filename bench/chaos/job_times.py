"""Change when jobs are due, since no run lasts as long as they would wait."""

import contextlib
from collections.abc import Sequence

from models.platform.database import Database
from models.platform.errors import Unavailable
from scheduler.timetable import schedule_id

START_EXTRACTIONS = """
UPDATE jobs SET run_at = now() WHERE id IN (
    SELECT id FROM jobs WHERE kind = 'memory.extract' AND state IN ('scheduled', 'queued') AND run_at > now()
    ORDER BY id DESC FOR NO KEY UPDATE SKIP LOCKED)
"""

AGE_QUEUED_JOBS = """
UPDATE jobs SET run_at = run_at - interval '10 minutes' WHERE id IN (
    SELECT id FROM jobs WHERE state = 'queued' AND run_at <= now() ORDER BY id DESC FOR NO KEY UPDATE SKIP LOCKED)
"""


# A schedule does not exist before its scheduler has started.
START_UPDATES_OF_SUMS = "UPDATE schedules SET next_fire_at = now() WHERE id = %(id)s AND next_fire_at > now()"

IS_RUNNING = "SELECT FROM jobs WHERE kind = ANY(%(kinds)s) AND state = 'running' LIMIT 1"


def start_extractions(database: Database) -> None:
    """Start the extractions of facts that are due in ten minutes."""
    with contextlib.suppress(Unavailable), database.connection() as connection:
        connection.execute(START_EXTRACTIONS)


def start_updates_of_sums(database: Database) -> None:
    """Have the scheduler start the update of the sums of reports, which is due once a minute."""
    with contextlib.suppress(Unavailable), database.connection() as connection:
        connection.execute(START_UPDATES_OF_SUMS, {"id": schedule_id("rollups.update")})


def is_running(database: Database, kinds: Sequence[str]) -> bool:
    """Return whether a job of one of these kinds runs now."""
    with contextlib.suppress(Unavailable), database.connection() as connection:
        return connection.execute(IS_RUNNING, {"kinds": list(kinds)}).fetchone() is not None
    return False


def age_queued_jobs(database: Database) -> None:
    """Make queued jobs ten minutes older, as if they had waited for long."""
    with contextlib.suppress(Unavailable), database.connection() as connection:
        connection.execute(AGE_QUEUED_JOBS)

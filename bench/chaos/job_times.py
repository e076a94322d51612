"""Change when jobs are due, since no run lasts as long as they would wait."""

import contextlib

from models.platform.database import Database
from models.platform.errors import Unavailable

START_EXTRACTIONS = """
UPDATE jobs SET run_at = now() WHERE id IN (
    SELECT id FROM jobs WHERE kind = 'memory.extract' AND state IN ('scheduled', 'queued') AND run_at > now()
    ORDER BY id DESC FOR NO KEY UPDATE SKIP LOCKED)
"""

AGE_QUEUED_JOBS = """
UPDATE jobs SET run_at = run_at - interval '10 minutes' WHERE id IN (
    SELECT id FROM jobs WHERE state = 'queued' AND run_at <= now() ORDER BY id DESC FOR NO KEY UPDATE SKIP LOCKED)
"""


def start_extractions(database: Database) -> None:
    """Start the extractions of facts that are due in ten minutes."""
    with contextlib.suppress(Unavailable), database.connection() as connection:
        connection.execute(START_EXTRACTIONS)


def age_queued_jobs(database: Database) -> None:
    """Make queued jobs ten minutes older, as if they had waited for long."""
    with contextlib.suppress(Unavailable), database.connection() as connection:
        connection.execute(AGE_QUEUED_JOBS)

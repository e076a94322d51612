"""The job `rollups.update`: bring the sums of quarter hours up to date.

Each step commits by itself and may be repeated, so that nothing is lost or counted twice if an attempt stops at any
line.
"""

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.platform.database import Database
from models.reports import error_counts, memory_counts, usage_rollups
from pipelines.time_slice import TimeSlice


def run(attempt: Attempt) -> Ending:
    """Add what has changed to the sums, then count the accounts without sums: all, after an upgrade or a restore.

    Raises Unavailable, the reason to stop, and Released after a time slice.
    """
    time_slice = TimeSlice(attempt)
    groups = update(attempt.database)
    accounts = 0
    while update_next_account(attempt.database):
        accounts += 1
        time_slice.check()
    return plain_ending(attempt, "completed", result={"groups": groups, "accounts": accounts})


def update(database: Database) -> int:
    """Add what has changed to the sums. Returns the number of groups that changed."""
    with database.transaction() as connection:
        groups = usage_rollups.update(connection)
    with database.connection() as connection:
        error_counts.merge(connection)
        memory_counts.merge(connection)
    return groups


def update_next_account(database: Database) -> bool:
    """Count the records of an account without sums. Returns whether there was one."""
    with database.transaction() as connection:
        return usage_rollups.update_next_account(connection)

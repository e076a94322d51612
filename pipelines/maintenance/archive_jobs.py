"""Move jobs that ended days ago to `ended_jobs`, so that the table of the other jobs stays small."""

import math
import time

from models.access import idempotency
from models.jobs import ended_jobs, ended_partitions
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.ended_jobs import MOVED_AFTER
from models.platform.compatibility import Compatibility
from pipelines.time_slice import TimeSlice

#: The schema version whose code and later ones read `ended_jobs`.
SINCE = "0015"

#: Trees of jobs that one transaction moves at most: their rows stay locked meanwhile.
BATCH = 100

#: Seconds after which the rest is left to the next job: an upgrade may leave millions of jobs to move.
TIME_SLICE = 900.0

#: Keys of requests that one statement deletes at most.
KEYS_BATCH = 500


def run(compatibility: Compatibility, attempt: Attempt) -> Ending:
    """Move in batches. Each commits by itself, so that the next attempt continues after a crash.

    The job's argument `age_seconds` replaces MOVED_AFTER, for tests under load.
    """
    if not compatibility.at_least(SINCE):
        return plain_ending(attempt, "completed", result={"moved": 0, "waiting_for": f"finalization of {SINCE}"})
    ended_partitions.create_missing(attempt.database)
    time_slice = TimeSlice(attempt, math.inf)
    # Repeating one of their requests would insert a moved job again.
    time_slice.repeat(attempt.database, idempotency.prune, KEYS_BATCH)
    moved = _move(attempt, time_slice, attempt.job.arguments.get("age_seconds", MOVED_AFTER))
    return plain_ending(attempt, "completed", result={"moved": moved})


def _move(attempt: Attempt, time_slice: TimeSlice, age: float) -> int:
    moved: int = (attempt.job.progress or {}).get("done", 0)
    batch = ended_jobs.Batch(0, ended_jobs.Cursor())
    end = time.monotonic() + TIME_SLICE
    while batch.next and time.monotonic() < end:
        time_slice.check()
        with attempt.database.transaction() as connection:
            batch = ended_jobs.move_batch(connection, BATCH, age=age, after=batch.next)
        moved += batch.moved
        attempt.report_progress(moved, note="ended jobs moved")
    return moved

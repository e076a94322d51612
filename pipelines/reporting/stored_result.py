"""The file that an earlier attempt at a job has stored, and its numbers.

They are stored with the job before the file is, so that an attempt that finds the file completes the job with them, and
reads no later snapshot.
"""

from collections.abc import Mapping
from typing import Any

from models.accounts import files
from models.jobs.attempt_context import Attempt


def stored_result(attempt: Attempt, file_id: str) -> Mapping[str, Any] | None:
    """Return the numbers of the job's file; None if it is still to be stored."""
    numbers: Mapping[str, Any] | None = (attempt.job.progress or {}).get("resume")
    if not numbers:
        return None
    with attempt.database.connection() as connection:
        return numbers if files.read_any(connection, file_id, attempt.job.account_id) else None

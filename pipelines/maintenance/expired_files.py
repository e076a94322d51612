"""Enqueue the deletion of files that have expired, as those of ended imports."""

from datetime import UTC, datetime

from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob

KIND = "maintenance.prune"

#: The arguments of a job that deletes expired files only. A worker of an earlier version prunes everything instead.
FILES_ONLY = {"only": "files"}


def expired_files_job() -> NewJob:
    """Build the job that deletes expired files now. It is inserted unless one is queued already."""
    return NewJob(
        KIND,
        PLATFORM_ACCOUNT,
        FILES_ONLY,
        run_at=datetime.now(UTC),
        serial_key=f"{KIND} files",
        coalesce=True,
        lane="platform files",  # so that other maintenance yields to it
    )

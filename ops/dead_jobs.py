"""`sangha dead`: list, show, replay and discard dead jobs."""

from collections.abc import Sequence
from contextlib import suppress

import click
from redis import RedisError

from models.jobs import dead_jobs
from models.jobs.jobs import Job
from models.journal import journal
from models.platform.database import Connection
from models.platform.errors import ConfigurationError
from models.platform.redis_client import connect
from models.platform.settings import Settings
from ops.database_connection import transaction
from ops.table import align_columns

#: Dead jobs that `--all` replays or discards at most.
MAX_JOBS = 1000

#: Characters of an error message in the list.
MAX_ERROR_WIDTH = 60

HEADINGS = ("job", "kind", "account", "attempts", "died", "error")

DETAILS = ("id", "kind", "queue", "account_id", "state", "attempt", "failures", "created_at", "finished_at")


def list_dead(settings: Settings, limit: int) -> None:
    """Print one line per dead job, the latest first."""
    with transaction(settings) as connection:
        jobs = dead_jobs.list_dead_jobs(connection, limit)
    click.echo("\n".join(align_columns([HEADINGS, *map(dead_row, jobs)])) if jobs else "No dead jobs.")


def dead_row(job: Job) -> list[object]:
    """Return the cells of a dead job's line."""
    died = f"{job.finished_at:%Y-%m-%d %H:%M:%S}" if job.finished_at else "-"
    error = " ".join(str((job.error or {}).get("message", "")).split())
    return [job.id, job.kind, job.account_id, job.attempt, died, error[:MAX_ERROR_WIDTH]]


def show_dead(settings: Settings, job_id: str) -> None:
    """Print a job's fields and its traceback. Raises ConfigurationError for an unknown job."""
    with transaction(settings) as connection:
        job = dead_jobs.read_any(connection, job_id)
    if job is None:
        raise ConfigurationError(f"there is no job {job_id}")
    rows = [(name, getattr(job, name)) for name in DETAILS]
    rows += [("arguments", job.arguments), ("error", (job.error or {}).get("message", "-"))]
    click.echo("\n".join(align_columns(rows)))
    click.echo(f"\n{job.traceback or 'No traceback: the worker process died.'}")


def replay_dead(settings: Settings, job_ids: Sequence[str]) -> None:
    """Queue dead jobs again with all their attempts; the sweeper publishes them within a second."""
    with transaction(settings) as connection:
        replayed = dead_jobs.replay(connection, selected(connection, job_ids))
    forget_journals(settings, replayed)
    report("replayed", job_ids, replayed, "not dead, or the child of a job that has gone on without it")


def forget_journals(settings: Settings, job_ids: Sequence[str]) -> None:
    """Delete the jobs' streams from Redis, which end with `dead`; the archive in Postgres continues them."""
    client = connect(settings.redis_address)
    with suppress(RedisError):
        for job_id in job_ids:
            journal.delete(client, job_id)
    client.close()


def discard_dead(settings: Settings, job_ids: Sequence[str]) -> None:
    """Mark dead jobs as failed."""
    with transaction(settings) as connection:
        discarded = dead_jobs.discard(connection, selected(connection, job_ids))
    report("discarded", job_ids, discarded, "not dead")


def selected(connection: Connection, job_ids: Sequence[str]) -> Sequence[str]:
    """Return the named jobs, or all dead jobs where none is named."""
    return job_ids or [job.id for job in dead_jobs.list_dead_jobs(connection, MAX_JOBS)]


def report(verb: str, named: Sequence[str], done: Sequence[str], reason: str) -> None:
    """Print how many jobs were changed. Raises ConfigurationError when a named job was not."""
    click.echo(f"{len(done)} {verb}")
    if skipped := [job_id for job_id in named if job_id not in done]:
        raise ConfigurationError(f"not {verb}: {', '.join(skipped)} ({reason})")

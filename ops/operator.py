"""`sangha pools` and `sangha dead`: what the operator sees of the work, and may do about the dead."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import click
import psycopg
from psycopg.rows import dict_row
from redis import RedisError

from models.jobs import operations
from models.jobs.jobs import Job
from models.journal import journal
from models.platform.database import Connection
from models.platform.errors import ConfigurationError, Unavailable
from models.platform.redis_client import connect
from models.platform.settings import Settings
from ops.doctor import one_line

#: How many of the dead are listed and, with --all, replayed or discarded at a time.
PAGE = 1000


@contextmanager
def connected(settings: Settings) -> Iterator[Connection]:
    """One transaction. Raises Unavailable when the database does not answer, ConfigurationError without our tables."""
    try:
        with Connection.connect(settings.postgres_dsn, connect_timeout=5, row_factory=dict_row) as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise Unavailable(f"The database does not answer ({one_line(error)}): run `sangha doctor`") from None
    except psycopg.errors.UndefinedTable:
        raise ConfigurationError("the database has no tables of Sangha's yet: run `sangha migrate`") from None


def show_pools(settings: Settings) -> None:
    """One line a pool."""
    with connected(settings) as connection:
        states = operations.pool_states(connection)
    rows = [pool_row(state) for state in states]
    table(["pool", "workers", "threads", "queued", "running", "waiting", "dead", "oldest"], rows)


def pool_row(state: operations.PoolState) -> list[object]:
    """What a line says of a pool."""
    oldest = f"{state.oldest:.1f} s" if state.oldest else "-"
    return [state.pool, state.workers, state.threads, state.queued, state.running, state.waiting, state.dead, oldest]


def list_dead(settings: Settings, limit: int) -> None:
    """One line a dead job, the latest first."""
    with connected(settings) as connection:
        jobs = operations.dead_jobs(connection, limit)
    if not jobs:
        click.echo("No dead jobs.")
        return
    table(["job", "kind", "account", "attempts", "died", "why"], [dead_row(job) for job in jobs])


def dead_row(job: Job) -> list[object]:
    """What a line says of a dead job."""
    died = f"{job.finished_at:%Y-%m-%d %H:%M:%S}" if job.finished_at else "-"
    why = " ".join(str((job.error or {}).get("message", "")).split())
    return [job.id, job.kind, job.account_id, job.attempt, died, why[:60]]


def show_dead(settings: Settings, job_id: str) -> None:
    """Everything about one job. Raises ConfigurationError when there is none of that id."""
    with connected(settings) as connection:
        job = operations.any_job(connection, job_id)
    if job is None:
        raise ConfigurationError(f"there is no job {job_id}")
    for name in ("id", "kind", "queue", "account_id", "state", "attempt", "failures", "created_at", "finished_at"):
        click.echo(f"{name:<12}{getattr(job, name)}")
    click.echo(f"{'arguments':<12}{job.arguments}")
    click.echo(f"{'error':<12}{(job.error or {}).get('message', '-')}")
    click.echo(f"\n{job.traceback or 'no traceback: its process died'}")


def replay_dead(settings: Settings, job_ids: Sequence[str]) -> None:
    """Give dead jobs a new life; the scheduler's sweep sends them within a second."""
    with connected(settings) as connection:
        done = operations.replay(connection, chosen(connection, job_ids))
    forget_journals(settings, done)
    report("replayed", job_ids, done, "not dead, or the child of a job that went on without it")


def forget_journals(settings: Settings, job_ids: Sequence[str]) -> None:
    """What Redis remembers ends with the old ending; the archive knows better."""
    client = connect(settings.redis_address)
    with suppress(RedisError):
        for job_id in job_ids:
            journal.forget(client, job_id)
    client.close()


def discard_dead(settings: Settings, job_ids: Sequence[str]) -> None:
    """Take dead jobs off the list."""
    with connected(settings) as connection:
        done = operations.discard(connection, chosen(connection, job_ids))
    report("discarded", job_ids, done, "not dead")


def chosen(connection: Connection, job_ids: Sequence[str]) -> Sequence[str]:
    """The named jobs, or all the dead."""
    return job_ids or [job.id for job in operations.dead_jobs(connection, PAGE)]


def report(verb: str, asked: Sequence[str], done: Sequence[str], otherwise: str) -> None:
    """Say what was done. Raises ConfigurationError when some that were named could not be."""
    click.echo(f"{len(done)} {verb}")
    if left := [job_id for job_id in asked if job_id not in done]:
        raise ConfigurationError(f"not {verb}: {', '.join(left)} ({otherwise})")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they must be; the last one takes the rest of the line."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

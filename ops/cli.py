"""The `sangha` command. Each subcommand imports what it needs when it runs, so that `--help` is fast."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.platform.errors import ConfigurationError, SanghaError
from ops.exit_codes import INTERRUPTED, MISCONFIGURED, UNAVAILABLE

if TYPE_CHECKING:
    from models.platform.settings import Settings

data_dir = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for all data. [default: SANGHA_DATA_DIR, or .sangha]",
)
port = click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 chooses a free one. [default: SANGHA_PORT, or 8000]",
)
host = click.option("--host", help="Address to listen on. [default: SANGHA_HOST, or 127.0.0.1]")
verbose = click.option("-v", "--verbose", is_flag=True, help="Log debug messages too.")


class OneLineErrors(click.Group):
    """A group of commands that print Sangha's own errors as one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and map its errors to exit codes."""
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            fail(str(error), MISCONFIGURED)
        except SanghaError as error:
            fail(str(error), UNAVAILABLE)
        except ModuleNotFoundError as error:
            fail(f"the Python package {error.name} is missing: run `make install`", MISCONFIGURED)


def fail(message: str, code: int) -> None:
    """Print one line to standard error and exit."""
    click.echo(f"sangha: {' '.join(message.split())}", err=True)
    sys.exit(code)


def print_version(ctx: click.Context, parameter: click.Parameter, requested: bool) -> None:
    """Print the version and exit."""
    if requested:
        from ops.version import version

        click.echo(f"sangha {version()}")
        ctx.exit()


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=print_version, help="Print the version."
)
def main() -> None:
    """Sangha: a self-hosted backend for AI assistants.

    `sangha up` runs everything on this machine. The other commands run the processes one by one, or inspect and manage
    an installation. Settings are environment variables (SANGHA_…); see docs/guides/operate.md.
    """


@main.command()
@host
@port
@data_dir
def up(host: str | None, port: int | None, data_dir: Path | None) -> None:
    """Run everything on this machine until Ctrl-C.

    Starts Postgres and Valkey, applies migrations, and starts workers of all pools, a web process and a scheduler. A
    server with an address in the settings (SANGHA_DATABASE_URL, SANGHA_REDIS_URL, SANGHA_BROKER_URL) is used instead
    of an embedded one.
    """
    settings = prepare(quiet=True, host=host, port=port, data_dir=data_dir)
    from ops.up import up

    up(settings)


@main.command()
@host
@port
@data_dir
@verbose
def web(host: str | None, port: int | None, data_dir: Path | None, verbose: bool) -> None:
    """Run one web process, which serves the HTTP API."""
    settings = prepare(verbose, host=host, port=port, data_dir=data_dir)
    from web.server import serve

    until_interrupted(lambda: serve(settings))


@main.command()
@click.argument("pools", nargs=-1, required=True, metavar="POOL…")
@data_dir
@verbose
def worker(pools: tuple[str, ...], data_dir: Path | None, verbose: bool) -> None:
    """Run one worker of one or more pools.

    Pools: inference, memory, recall, reporting, delivery, maintenance. On TERM, running jobs are released, and another
    worker continues them.
    """
    settings = prepare(verbose, data_dir=data_dir)
    from tasks.worker import run_worker

    until_interrupted(lambda: run_worker(settings, pools))


@main.command()
@data_dir
@verbose
def scheduler(data_dir: Path | None, verbose: bool) -> None:
    """Run one scheduler. Several may run; each time fires once."""
    settings = prepare(verbose, data_dir=data_dir)
    from scheduler.clock import run

    until_interrupted(lambda: run(settings))


@main.command()
@data_dir
@click.option("--finalize", is_flag=True, help="Rule out a return to an earlier version now, not after a day.")
@verbose
def migrate(data_dir: Path | None, finalize: bool, verbose: bool) -> None:
    """Apply pending migrations to the database.

    Safe to repeat, and to run on several machines at once. Migrations that an earlier version does not work with wait
    until none has run for a day.
    """
    settings = prepare(verbose, data_dir=data_dir)
    from models.platform import pooler
    from models.platform.migrate import migrate

    migrations = migrate(settings.postgres_dsn, finalize_upgrade=finalize)
    pooler.store_limits(settings)
    lines = [f"applied {name}" for name in migrations.applied]
    lines += [f"held back {file} until the upgrade is finalized" for file in migrations.held_back]
    click.echo("\n".join(lines) or "no pending migrations")


@main.command()
@data_dir
@click.option("--release", is_flag=True, help="Check only whether this release can be rolled out now.")
def doctor(data_dir: Path | None, release: bool) -> None:
    """Check the installation and print a remedy for each problem.

    With --release, compare the pending migrations with the schema versions of the running processes: run it before
    `sangha migrate`. Exits with 1 if a check fails.
    """
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.doctor.release import RELEASE_CHECKS
    from ops.doctor.report import CHECKS, print_report

    sys.exit(0 if print_report(settings, click.echo, RELEASE_CHECKS if release else CHECKS) else 1)


@main.command()
@data_dir
def pools(data_dir: Path | None) -> None:
    """Show the workers, threads and jobs of each pool.

    `scheduled` jobs are due later; those after the next 10,000 are not counted, which a `+` indicates. `oldest` is the
    longest time that a due job has been queued.
    """
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.pools import show_pools

    show_pools(settings)


@main.command()
@click.option("--all", "all_accounts", is_flag=True, help="Include the schedules of all accounts.")
@data_dir
def schedules(all_accounts: bool, data_dir: Path | None) -> None:
    """Show the timetable: when each entry fires next, and the result of its last firing."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.schedules import show_schedules

    show_schedules(settings, all_accounts=all_accounts)


@main.group()
def dead() -> None:
    """List, show, replay and discard dead jobs: jobs without attempts left."""


@dead.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Jobs to list at most.")
@data_dir
def dead_list(limit: int, data_dir: Path | None) -> None:
    """List dead jobs, the latest first."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.dead_jobs import list_dead

    list_dead(settings, limit)


@dead.command("show")
@click.argument("job_id", metavar="JOB")
@data_dir
def dead_show(job_id: str, data_dir: Path | None) -> None:
    """Show a job and its last traceback."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.dead_jobs import show_dead

    show_dead(settings, job_id)


@dead.command("replay")
@click.argument("job_ids", nargs=-1, metavar="JOB…")
@click.option("--all", "all_jobs", is_flag=True, help="All dead jobs, up to 1,000.")
@data_dir
def dead_replay(job_ids: tuple[str, ...], all_jobs: bool, data_dir: Path | None) -> None:
    """Queue dead jobs again, with all their attempts."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.dead_jobs import replay_dead

    replay_dead(settings, selection(job_ids, all_jobs))


@dead.command("discard")
@click.argument("job_ids", nargs=-1, metavar="JOB…")
@click.option("--all", "all_jobs", is_flag=True, help="All dead jobs, up to 1,000.")
@data_dir
def dead_discard(job_ids: tuple[str, ...], all_jobs: bool, data_dir: Path | None) -> None:
    """Mark dead jobs as failed, which removes them from the list."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.dead_jobs import discard_dead

    discard_dead(settings, selection(job_ids, all_jobs))


@main.group()
def effects() -> None:
    """List and resolve calls to other systems, such as payments, that may or may not have happened."""


@effects.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Effects to list at most.")
@data_dir
def effects_list(limit: int, data_dir: Path | None) -> None:
    """List the calls that only an operator can resolve, the oldest job's first.

    Their jobs have ended. Look each one up in the other system, by its idempotency key.
    """
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.effects import list_unknown

    list_unknown(settings, limit)


@effects.command("resolve")
@click.argument("job_id", metavar="JOB")
@click.argument("step")
@click.argument("state", type=click.Choice(["done", "failed"]))
@click.option("--result", help="With done: the other system's answer, a JSON object.")
@click.option("--reason", help="With failed: the message of the job's error.")
@data_dir
def effects_resolve(
    job_id: str, step: str, state: str, result: str | None, reason: str | None, data_dir: Path | None
) -> None:
    """Record whether a call has happened. The decision is final; the call is never made again."""
    if (result if state == "failed" else reason) is not None:
        raise click.UsageError("Give --result with done, --reason with failed.")
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.effects import resolve

    resolve(settings, job_id, step, "done" if state == "done" else "failed", result=result, reason=reason)


@main.group()
def admin() -> None:
    """Create, list and revoke operators: staff with access to all accounts, at /admin."""


@admin.command("create")
@click.argument("email")
@click.option("--password-stdin", is_flag=True, help="Read the password of a new user from standard input.")
@data_dir
def admin_create(email: str, password_stdin: bool, data_dir: Path | None) -> None:
    """Make a user an operator.

    An unknown address gets a user and an account, with a password that is prompted for; the address counts as verified.
    Safe to repeat.
    """
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.admin import create_admin

    create_admin(settings, email, password_stdin=password_stdin)


@admin.command("list")
@data_dir
def admin_list(data_dir: Path | None) -> None:
    """List the operators."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.admin import list_admins

    list_admins(settings)


@admin.command("revoke")
@click.argument("email")
@data_dir
def admin_revoke(email: str, data_dir: Path | None) -> None:
    """Revoke an operator's rights, with immediate effect. The user keeps their account."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.admin import revoke_admin

    revoke_admin(settings, email)


@main.group()
def keys() -> None:
    """List and rotate the keys that sign access tokens."""


@keys.command("list")
@data_dir
def keys_list(data_dir: Path | None) -> None:
    """List the key generations, the signing one last."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.keys import list_keys

    list_keys(settings)


@keys.command("rotate")
@data_dir
def keys_rotate(data_dir: Path | None) -> None:
    """Sign new tokens with a new key.

    Nobody is logged out: tokens of the previous key stay valid until they expire.
    """
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.keys import rotate_keys

    rotate_keys(settings)


def selection(job_ids: tuple[str, ...], all_jobs: bool) -> tuple[str, ...]:
    """Return the named jobs, or none for all. Raises UsageError unless exactly one of the two is given."""
    if bool(job_ids) == all_jobs:
        raise click.UsageError("Give job ids or --all, not both." if job_ids else "Give one or more job ids, or --all.")
    return job_ids


def prepare(verbose: bool = False, *, quiet: bool = False, **overrides: object) -> "Settings":
    """Configure logging and load the settings; command-line options override the environment."""
    from models.platform.settings import load_settings
    from ops.logs import configure_logging
    from pipelines.inference.registry import engine_spec

    configure_logging(verbose=verbose, quiet=quiet)
    settings = load_settings(**{field: value for field, value in overrides.items() if value is not None})
    engine_spec(settings)  # an unknown engine, or one that lacks a setting, ends every command
    return settings


def until_interrupted(run: Callable[[], None]) -> None:
    """Run until Ctrl-C, which prints no traceback."""
    try:
        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)

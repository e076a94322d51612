"""The `sangha` command. Each command imports what it needs when it runs, so that `--help` is fast."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.platform.errors import ConfigurationError, SanghaError

if TYPE_CHECKING:
    from models.platform.settings import Settings

#: Exit codes: a setting is wrong (the same again ends alike), or something does not answer (trying again may help).
MISCONFIGURED, UNAVAILABLE = 2, 1

data_dir = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything is kept; SANGHA_DATA_DIR, or else .sangha.",
)
port = click.option("--port", type=click.IntRange(0, 65535), help="Where to listen; SANGHA_PORT, or else 8000. 0: any.")
host = click.option("--host", help="The address to listen on; SANGHA_HOST, or else 127.0.0.1.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Log everything.")


class OneLineErrors(click.Group):
    """A group whose commands end with one line, never a traceback, when the operator can do something about it."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            fail(str(error), MISCONFIGURED)
        except SanghaError as error:
            fail(str(error), UNAVAILABLE)
        except ModuleNotFoundError as error:
            fail(f"the Python package {error.name} is missing: run make install", MISCONFIGURED)


def fail(message: str, code: int) -> None:
    """End with one line."""
    click.echo(f"sangha: {' '.join(message.split())}", err=True)
    sys.exit(code)


def show_version(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
    """Say which version this is."""
    if asked:
        from ops.version import version

        click.echo(f"sangha {version()}")
        ctx.exit()


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Show the version."
)
def main() -> None:
    """Sangha: a self-hosted backend for AI assistants.

    `sangha up` runs all of it on this machine. The other commands are for those who run the parts one by one,
    or want to see how they fare. Settings come from the environment (SANGHA_…); see docs/operating.md.
    """


@main.command()
@host
@port
@data_dir
def up(host: str | None, port: int | None, data_dir: Path | None) -> None:
    """Run everything here, until Ctrl-C.

    Embedded Postgres and Valkey, migrations, the web process, all pools and the scheduler. What has an address in the
    settings (SANGHA_DATABASE_URL, SANGHA_REDIS_URL, SANGHA_BROKER_URL) is used instead of an embedded server.
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
    """Run one web process."""
    settings = prepare(verbose, host=host, port=port, data_dir=data_dir)
    from web.server import serve

    quietly(lambda: serve(settings))


@main.command()
@click.argument("pools", nargs=-1, required=True, metavar="POOL…")
@data_dir
@verbose
def worker(pools: tuple[str, ...], data_dir: Path | None, verbose: bool) -> None:
    """Run one worker of one or more pools.

    Pools: inference, fallback, memory, recall, billing, reporting, delivery, maintenance. TERM gives
    running jobs back; another worker continues them.
    """
    settings = prepare(verbose, data_dir=data_dir)
    from tasks.worker import work

    quietly(lambda: work(settings, pools))


@main.command()
@data_dir
@verbose
def scheduler(data_dir: Path | None, verbose: bool) -> None:
    """Run one scheduler. Several may run: one leads, the others wait."""
    settings = prepare(verbose, data_dir=data_dir)
    from scheduler.clock import run

    quietly(lambda: run(settings))


@main.command()
@data_dir
@verbose
def migrate(data_dir: Path | None, verbose: bool) -> None:
    """Bring the database to the present schema. Safe to run twice, and on several machines at once."""
    settings = prepare(verbose, data_dir=data_dir)
    from models.platform.migrate import migrate

    applied = migrate(settings.postgres_dsn)
    click.echo("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


@main.command()
@data_dir
def doctor(data_dir: Path | None) -> None:
    """Check each part and say what to do about it. Ends with 1 if something fails."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.doctor import examine

    sys.exit(0 if examine(settings, click.echo) else 1)


@main.command()
@data_dir
def pools(data_dir: Path | None) -> None:
    """Show each pool: workers, threads, jobs by state, and how long the oldest has waited."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.operator import show_pools

    show_pools(settings)


@main.command()
@click.option("--all", "all_of_them", is_flag=True, help="Users' schedules too.")
@data_dir
def schedules(all_of_them: bool, data_dir: Path | None) -> None:
    """Show the timetable: when each entry fires next, what came of the last time, and which process leads."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.schedules import show_schedules

    show_schedules(settings, all_of_them=all_of_them)


@main.group()
def dead() -> None:
    """List, show, replay and discard dead jobs: those that ran out of attempts."""


@dead.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many.")
@data_dir
def dead_list(limit: int, data_dir: Path | None) -> None:
    """List dead jobs, the latest first."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.operator import list_dead

    list_dead(settings, limit)


@dead.command("show")
@click.argument("job_id", metavar="JOB")
@data_dir
def dead_show(job_id: str, data_dir: Path | None) -> None:
    """Show one job with its traceback."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.operator import show_dead

    show_dead(settings, job_id)


@dead.command("replay")
@click.argument("job_ids", nargs=-1, metavar="JOB…")
@click.option("--all", "all_of_them", is_flag=True, help="All dead jobs, at most 1,000.")
@data_dir
def dead_replay(job_ids: tuple[str, ...], all_of_them: bool, data_dir: Path | None) -> None:
    """Give dead jobs a new life, with all their attempts."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.operator import replay_dead

    replay_dead(settings, either(job_ids, all_of_them))


@dead.command("discard")
@click.argument("job_ids", nargs=-1, metavar="JOB…")
@click.option("--all", "all_of_them", is_flag=True, help="All dead jobs, at most 1,000.")
@data_dir
def dead_discard(job_ids: tuple[str, ...], all_of_them: bool, data_dir: Path | None) -> None:
    """Take dead jobs off the list; for their owners they stay failed."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.operator import discard_dead

    discard_dead(settings, either(job_ids, all_of_them))


@main.group()
def admin() -> None:
    """Make, list and revoke operators: those who may work across accounts, at /admin."""


@admin.command("create")
@click.argument("email")
@click.option("--password-stdin", is_flag=True, help="Read a new user's password from standard input.")
@data_dir
def admin_create(email: str, password_stdin: bool, data_dir: Path | None) -> None:
    """Make somebody an operator.

    Who has no account yet gets one, with a password that is asked for; their address counts as verified. Safe to run
    twice.
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
    """Take an operator's rights, at once; they keep their account."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.admin import revoke_admin

    revoke_admin(settings, email)


@main.group()
def keys() -> None:
    """List and rotate the keys that sign access tokens."""


@keys.command("list")
@data_dir
def keys_list(data_dir: Path | None) -> None:
    """List the generations, the one that signs last."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.keys import list_keys

    list_keys(settings)


@keys.command("rotate")
@data_dir
def keys_rotate(data_dir: Path | None) -> None:
    """Sign with a new key from now on. Nobody is logged out: the one before holds as long as its tokens do."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.keys import rotate_keys

    rotate_keys(settings)


def either(job_ids: tuple[str, ...], all_of_them: bool) -> tuple[str, ...]:
    """The named jobs, or none for all: it takes a word to mean all."""
    if bool(job_ids) == all_of_them:
        raise click.UsageError("Name the jobs, or say --all.")
    return job_ids


def prepare(verbose: bool = False, *, quiet: bool = False, **overrides: object) -> "Settings":
    """Set up logging and parse the settings; what the command line leaves out stands in the environment."""
    from models.platform.settings import load_settings
    from ops.logs import configure_logging

    configure_logging(verbose=verbose, quiet=quiet)
    return load_settings(**{field: value for field, value in overrides.items() if value is not None})


def quietly(run: Callable[[], None]) -> None:
    """Ctrl-C is an order, not an error."""
    try:
        run()
    except KeyboardInterrupt:
        sys.exit(130)

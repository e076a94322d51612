"""The `sangha` command. Each subcommand imports what it needs when it runs, so that `--help` is fast."""

import sys
from collections.abc import Callable
from pathlib import Path

import click

from ops.command_line import OneLineErrors, data_dir, prepare, verbose
from ops.exit_codes import INTERRUPTED
from ops.management_commands import COMMANDS

port = click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 chooses a free one. [default: SANGHA_PORT, or 8000]",
)
host = click.option("--host", help="Address to listen on. [default: SANGHA_HOST, or 127.0.0.1]")


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


model = click.option(
    "--model",
    "models",
    multiple=True,
    metavar="[NAME=]PATH",
    help="A GGUF file, and its name in requests. [default: SANGHA_MODEL]",
)


@main.command()
@model
@host
@port
@data_dir
def up(models: tuple[str, ...], host: str | None, port: int | None, data_dir: Path | None) -> None:
    """Run everything on this machine until Ctrl-C.

    Starts Postgres and Valkey, applies migrations, and starts workers of all pools, a web process and a scheduler. A
    server with an address in the settings (SANGHA_DATABASE_URL, SANGHA_REDIS_URL, SANGHA_BROKER_URL) is used instead
    of an embedded one. Each --model gets a worker of its own; the first one is the default, unless SANGHA_DEFAULT_MODEL
    is set.
    """
    settings = prepare(quiet=True, host=host, port=port, data_dir=data_dir)
    from ops.model_options import default_first, parse_models
    from ops.up import up

    named = parse_models(models)
    up(default_first(settings, named), named)


@main.command()
@host
@port
@data_dir
@verbose
def web(host: str | None, port: int | None, data_dir: Path | None, verbose: bool) -> None:
    """Run one web process, which serves the HTTP API."""
    settings = prepare(verbose, host=host, port=port, data_dir=data_dir)
    from ops.preflight import check_release
    from web.server import serve

    check_release(settings)
    until_interrupted(lambda: serve(settings))


@main.command()
@click.argument("pools", nargs=-1, required=True, metavar="POOL…")
@model
@click.option("--slots", type=click.IntRange(1, 256), help="Concurrent answers. [default: SANGHA_SLOTS, or 4]")
@click.option("--context", type=click.IntRange(256, 1_048_576), help="Tokens of a slot. [default: SANGHA_CONTEXT]")
@data_dir
@verbose
def worker(
    pools: tuple[str, ...],
    models: tuple[str, ...],
    slots: int | None,
    context: int | None,
    data_dir: Path | None,
    verbose: bool,
) -> None:
    """Run one worker of one or more pools.

    Pools: inference, upstream, memory, recall, tools, billing, reporting, delivery, maintenance. On TERM, running jobs
    are released, and another worker continues them. A worker of the pool inference serves one model: that of --model,
    or the one of the settings. One of the pool upstream serves all models of SANGHA_UPSTREAMS.
    """
    settings = prepare(verbose, data_dir=data_dir, slots=slots, context=context)
    from ops.model_options import parse_models, serving
    from ops.preflight import check_release
    from tasks.worker import run_worker

    settings = serving(settings, parse_models(models), pools)

    check_release(settings)
    until_interrupted(lambda: run_worker(settings, pools))


@main.command()
@data_dir
@verbose
def scheduler(data_dir: Path | None, verbose: bool) -> None:
    """Run one scheduler. Several may run; each time fires once."""
    settings = prepare(verbose, data_dir=data_dir)
    from ops.preflight import check_release
    from scheduler.clock import run

    check_release(settings)
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
    from models.platform.migration_files import schema_version

    migrations = migrate(settings.postgres_dsn, finalize_upgrade=finalize)
    pooler.store_limits(settings)
    lines = [f"applied {name}" for name in migrations.applied]
    lines += [f"held back {file} until the upgrade is finalized" for file in migrations.held_back]
    if finalize:
        lines.append(f"finalized: versions before schema {schema_version()} no longer work with this database")
    click.echo("\n".join(lines) or "no pending migrations")


@main.command()
@data_dir
@click.option("--release", is_flag=True, help="Check only whether this release can be rolled out now.")
@click.option("--model", metavar="PATH", help="Check only this GGUF file: does it fit, with how many slots, how fast?")
def doctor(data_dir: Path | None, release: bool, model: str | None) -> None:
    """Check the installation and print a remedy for each problem.

    With --release, compare the pending migrations with the schema versions of the running processes: run it before
    `sangha migrate`. With --model, compare a model with the memory of this machine or its GPUs, and run it for a few
    seconds. Exits with 1 if a check fails.
    """
    settings = prepare(quiet=True, data_dir=data_dir, model=model)
    if model is not None:
        from ops.doctor.report import print_model_report

        sys.exit(0 if print_model_report(settings, click.echo) else 1)
    from ops.doctor.release import RELEASE_CHECKS
    from ops.doctor.report import CHECKS, print_report

    sys.exit(0 if print_report(settings, click.echo, RELEASE_CHECKS if release else CHECKS) else 1)


def until_interrupted(run: Callable[[], None]) -> None:
    """Run until Ctrl-C, which prints no traceback."""
    try:
        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


for command in COMMANDS:
    main.add_command(command)

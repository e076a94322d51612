"""Subcommands that observe a running installation."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ops.command_line import data_dir, prepare

if TYPE_CHECKING:
    from models.platform.log_levels import LevelName

LEVELS = ("debug", "info", "warning", "error", "default")


@click.command("log-level")
@click.argument("level", required=False, type=click.Choice(LEVELS, case_sensitive=False))
@click.option("--minutes", type=click.IntRange(1, 1440), default=30, show_default=True, help="How long it holds.")
@data_dir
def log_level(level: str | None, minutes: int, data_dir: Path | None) -> None:
    """Change the log level of all running processes for a while.

    Without LEVEL, show the one that holds. `default` returns every process to SANGHA_LOG_LEVEL at once. Also at
    `debug`, no secret and no content is logged.
    """
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.log_level import change_level, show_level

    if level is None:
        show_level(settings)
    else:
        change_level(settings, None if level == "default" else cast("LevelName", level.upper()), minutes)


@click.command()
@click.option("--interval", type=click.FloatRange(0.5, 60), default=2.0, show_default=True, help="Seconds per redraw.")
@click.option("--once", is_flag=True, help="Print once, and exit. Also where standard output is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print once as a JSON object.")
@click.option("--metrics", "urls", multiple=True, metavar="URL",
              help="Metrics of a web process, to count its streams. [default: of this machine]")  # fmt: skip
@data_dir
def top(interval: float, once: bool, as_json: bool, urls: tuple[str, ...], data_dir: Path | None) -> None:
    """Show what the installation does now: slots, tokens per second, pools, queues by age, streams, endpoints.

    Reads Postgres and Redis, so it works from every machine that can reach them. Only the numbers of streams come from
    the metrics of web processes. `q` quits.
    """
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.top.screen import top as show

    show(settings, interval=interval, once=once, as_json=as_json, metrics_urls=urls)

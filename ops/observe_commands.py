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

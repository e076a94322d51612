"""Subcommands that back up and restore the embedded default."""

from datetime import UTC, datetime
from pathlib import Path

import click

from ops.command_line import data_dir, prepare


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@data_dir
def backup(file: Path | None, data_dir: Path | None) -> None:
    """Write database, files and secret key into one FILE. [default: sangha-DATE.tar]

    For the embedded default, while `sangha up` runs or not. Servers of your own have tools of their own:
    docs/guides/backup.md.
    """
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.backup import backup as write

    write(settings, file or Path(f"sangha-{datetime.now(UTC):%Y-%m-%d-%H%M%S}.tar"))


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@data_dir
def restore(file: Path, data_dir: Path | None) -> None:
    """Restore a FILE of `sangha backup` into an empty data folder.

    The database is migrated to this release. A restore that is interrupted can be repeated.
    """
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.restore import restore as read

    read(settings, file)

"""Subcommands about the content of files."""

from pathlib import Path

import click

from ops.command_line import data_dir, prepare


@click.group("files")
def files_group() -> None:
    """Move the content of files to another store, and say whose a store is."""


@files_group.command("copy")
@click.option("--to", "destination", required=True, metavar="LOCATION", help="s3://BUCKET/PREFIX or a folder.")
@data_dir
def files_copy(destination: str, data_dir: Path | None) -> None:
    """Copy the content of all files to another store.

    Nothing is deleted. What the other store has already is not copied again, so the command may be interrupted and
    repeated: copy while the installation runs, set SANGHA_OBJECT_STORE, restart its processes, and copy once more what
    was stored meanwhile. Both stores use the same credentials and SANGHA_OBJECT_STORE_ENDPOINT.
    """
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.files import copy

    copy(settings, destination)


@files_group.command("claim")
@data_dir
def files_claim(data_dir: Path | None) -> None:
    """Mark the store as that of this database, which then deletes objects without a row.

    Needed after a restore from a dump. Never claim the store of an installation that still runs: its files would be
    deleted.
    """
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.files import claim

    claim(settings)

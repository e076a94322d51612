"""`sangha plans`."""

from pathlib import Path
from typing import BinaryIO

import click

from ops.command_line import data_dir, prepare

#: Bytes of a plan's description at most.
MAX_PLAN_BYTES = 100_000


@click.group("plans")
def plans_group() -> None:
    """List plans and change them."""


@plans_group.command("list")
@click.option("--versions", metavar="PLAN", help="The versions of this plan, newest first.")
@data_dir
def plans_list(versions: str | None, data_dir: Path | None) -> None:
    """List the newest version of every plan."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.plans import list_plans

    list_plans(settings, versions)


@plans_group.command("put")
@click.argument("plan")
@click.option("--file", "file", type=click.File("rb"), default="-", help="The body. [default: standard input]")
@data_dir
def plans_put(plan: str, file: BinaryIO, data_dir: Path | None) -> None:
    """Create a plan, or a new version of it, from the JSON body of `PUT /admin/plans/{id}`."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.plans import put_plan

    put_plan(settings, plan, file.read(MAX_PLAN_BYTES))

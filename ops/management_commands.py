"""Subcommands that inspect and manage an installation. `ops/cli.py` has those that run its processes."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from ops.backup_commands import backup, restore
from ops.command_line import data_dir, prepare
from ops.file_commands import files_group
from ops.observe_commands import log_level, top
from ops.plan_commands import plans_group
from ops.smoke_commands import smoke
from ops.work_commands import breakers_group, dead, effects, gateway_events, pools, schedules


@click.group()
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


@click.group()
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


@click.group("prices")
def prices_group() -> None:
    """List and set the prices of tokens."""


@prices_group.command("list")
@click.option("--model", help="Only prices of this model.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Prices to list at most.")
@data_dir
def prices_list(model: str | None, limit: int, data_dir: Path | None) -> None:
    """List the prices of all times, the newest first. Amounts are per million tokens."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.prices import list_prices

    list_prices(settings, model=model, limit=limit)


@prices_group.command("set")
@click.argument("model")
@click.option("--currency", required=True, help="Code of ISO 4217.")
@click.option("--input", "input_price", required=True, help="Amount per million input tokens.")
@click.option("--output", "output_price", required=True, help="Amount per million output tokens.")
@click.option("--cached-input", help="Amount per million cached input tokens. [default: that of input tokens]")
@click.option("--endpoint", default="", help="The upstream that it is for. [default: any]")
@click.option(
    "--class", "service_class", type=click.Choice(["standard", "batch", "priority"]), default="standard",
    show_default=True, help="The service class that it is for.",
)  # fmt: skip
@click.option("--from", "valid_from", help="When it begins (ISO 8601, UTC). [default: now, or in 60 seconds]")
@data_dir
def prices_set(
    model: str,
    currency: str,
    input_price: str,
    output_price: str,
    cached_input: str | None,
    endpoint: str,
    service_class: Literal["standard", "batch", "priority"],
    valid_from: str | None,
    data_dir: Path | None,
) -> None:
    """Set the price of a model's tokens from a time on.

    What was used before keeps its price. A price that replaces one in force begins after 60 seconds or later.
    """
    settings = prepare(quiet=True, data_dir=data_dir)
    from models.billing.prices import NewPrice
    from ops.prices import parse_amount, parse_time, set_price

    new = NewPrice(
        model=model,
        currency=currency,
        input=parse_amount(input_price),
        output=parse_amount(output_price),
        cached_input=None if cached_input is None else parse_amount(cached_input),
        endpoint=endpoint,
        service_class=service_class,
        valid_from=None if valid_from is None else parse_time(valid_from),
    )
    set_price(settings, new)


@click.group()
def audit() -> None:
    """Check the books."""


@audit.command("money")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per difference, and a summary.")
@click.option("--days", type=click.IntRange(0, 3650), default=7, show_default=True,
              help="Days of payments to compare with the gateways' own books; 0: none.")  # fmt: skip
@data_dir
def audit_money(as_json: bool, days: int, data_dir: Path | None) -> None:
    """Prove that the ledger, usage, prices, invoices, payments and credits agree.

    Prints each difference with the ids that it concerns. Exits with 1 if there is one. Changes nothing, and sees one
    snapshot of the database; its memory does not depend on the number of rows. Afterwards it lists the payments of the
    last days at Stripe, or at the simulator, and compares them, their refunds and their disputes with those here.
    """
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.money_audit import print_audit

    sys.exit(0 if print_audit(settings, as_json=as_json, days=days) else 1)


COMMANDS: Sequence[click.Command] = (
    pools, breakers_group, schedules, dead, effects, gateway_events, prices_group, plans_group, audit, admin, keys,
    files_group, backup, restore, log_level, top, smoke,
)  # fmt: skip

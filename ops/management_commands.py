"""Subcommands that inspect and manage an installation. `ops/cli.py` has those that run its processes."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from ops.command_line import data_dir, prepare
from ops.plan_commands import plans_group


@click.command()
@data_dir
def pools(data_dir: Path | None) -> None:
    """Show the workers, threads and jobs of each pool, and the circuit breakers of endpoints.

    `scheduled` jobs are due later; those after the next 10,000 are not counted, which a `+` indicates. `oldest` is the
    longest time that a due job has been queued.
    """
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.pools import show_pools

    show_pools(settings)


@click.group("breakers")
def breakers_group() -> None:
    """Show the circuit breakers of endpoints, and keep one open or closed."""


@breakers_group.command("list")
@data_dir
def breakers_list(data_dir: Path | None) -> None:
    """Show the breaker of each endpoint: its state, since when, why, and when a job probes the endpoint."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.breakers import show_breakers

    show_breakers(settings)


@breakers_group.command("open")
@click.argument("endpoint")
@data_dir
def breakers_open(endpoint: str, data_dir: Path | None) -> None:
    """Send an endpoint no more requests, as before its maintenance."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.breakers import force

    force(settings, endpoint, "open")


@breakers_group.command("close")
@click.argument("endpoint")
@data_dir
def breakers_close(endpoint: str, data_dir: Path | None) -> None:
    """Send an endpoint requests whatever their results, and forget its failures."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.breakers import force

    force(settings, endpoint, "closed")


@breakers_group.command("auto")
@click.argument("endpoint")
@data_dir
def breakers_auto(endpoint: str, data_dir: Path | None) -> None:
    """Let the results of an endpoint's requests decide again."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.breakers import force

    force(settings, endpoint, None)


@click.command()
@click.option("--all", "all_accounts", is_flag=True, help="Include the schedules of all accounts.")
@data_dir
def schedules(all_accounts: bool, data_dir: Path | None) -> None:
    """Show the timetable: when each entry fires next, and the result of its last firing."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.schedules import show_schedules

    show_schedules(settings, all_accounts=all_accounts)


@click.group()
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


@click.group()
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


@click.group("gateway-events")
def gateway_events() -> None:
    """List and replay the events that payment gateways have sent.

    The gateway `test` simulates one. Its payment methods decide what happens, such as pm_test_declined,
    pm_test_action_required, pm_test_timeout, pm_test_duplicate_events, pm_test_disputed and pm_test_refund_pending; the
    guide docs/guides/billing.md has all.
    """


@gateway_events.command("list")
@click.option("--state", type=click.Choice(["received", "applied", "ignored", "failed"]), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@data_dir
def gateway_events_list(state: str | None, limit: int, data_dir: Path | None) -> None:
    """List the events, the latest first. Ignored ones are about nothing of ours."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.gateway_events import list_events

    list_events(settings, state=state, limit=limit)  # type: ignore[arg-type]


@gateway_events.command("replay")
@click.argument("gateway", type=click.Choice(["test", "stripe"]))
@click.argument("event_id")
@data_dir
def gateway_events_replay(gateway: str, event_id: str, data_dir: Path | None) -> None:
    """Fetch what an event is about once more, and apply it. Safe to repeat."""
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.gateway_events import replay

    replay(settings, gateway, event_id)


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


def selection(job_ids: tuple[str, ...], all_jobs: bool) -> tuple[str, ...]:
    """Return the named jobs, or none for all. Raises UsageError unless exactly one of the two is given."""
    if bool(job_ids) == all_jobs:
        raise click.UsageError("Give job ids or --all, not both." if job_ids else "Give one or more job ids, or --all.")
    return job_ids


COMMANDS: Sequence[click.Command] = (
    pools, breakers_group, schedules, dead, effects, gateway_events, prices_group, plans_group, audit, admin, keys,
)  # fmt: skip

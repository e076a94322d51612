"""Subcommands that inspect jobs and what runs them, and repeat or end what has failed."""

from pathlib import Path
from typing import Literal

import click

from ops.command_line import data_dir, prepare


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
    _force_breaker(data_dir, endpoint, "open")


@breakers_group.command("close")
@click.argument("endpoint")
@data_dir
def breakers_close(endpoint: str, data_dir: Path | None) -> None:
    """Send an endpoint requests whatever their results, and forget its failures."""
    _force_breaker(data_dir, endpoint, "closed")


@breakers_group.command("auto")
@click.argument("endpoint")
@data_dir
def breakers_auto(endpoint: str, data_dir: Path | None) -> None:
    """Let the results of an endpoint's requests decide again."""
    _force_breaker(data_dir, endpoint, None)


def _force_breaker(data_dir: Path | None, endpoint: str, state: Literal["open", "closed"] | None) -> None:
    settings = prepare(quiet=True, data_dir=data_dir)
    from ops.breakers import force

    force(settings, endpoint, state)


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


def selection(job_ids: tuple[str, ...], all_jobs: bool) -> tuple[str, ...]:
    """Return the named jobs, or none for all. Raises UsageError unless exactly one of the two is given."""
    if bool(job_ids) == all_jobs:
        raise click.UsageError("Give job ids or --all, not both." if job_ids else "Give one or more job ids, or --all.")
    return job_ids

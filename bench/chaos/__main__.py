"""`python -m bench.chaos`: break Sangha on purpose, by a seed, and report the violated guarantees."""

import random
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from bench import machine
from bench.chaos import run
from bench.chaos.attacks import ATTACKS
from bench.chaos.fault import Fault
from bench.chaos.planted import PLANTED, run_planted
from bench.chaos.previous import PREVIOUS
from bench.chaos.report import ChaosReport
from bench.chaos.run import RunOptions
from bench.chaos.stack import SLOTS
from bench.command import FAILED, HELP, broker_option, exit_code_of, file_option, write_json
from bench.progress import Progress
from models.platform.errors import ConfigurationError, SanghaError


@click.command(context_settings=HELP)
@click.option("--seed", type=int, help="Determines the plan; random by default.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=5, show_default=True, help="Duration.")
@broker_option
@click.option("--only", multiple=True, metavar="FAULT", help="Inject only this fault; may be repeated.")
@file_option("--json", "file", "Write the report to this file too.")
@click.option("--slots", type=click.IntRange(1, 64), default=SLOTS, show_default=True, help="Of each of two engines.")
@click.option(
    "--patience",
    type=click.FloatRange(min=1),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="How long work may take to end once all faults are healed.",
)
@click.option("--previous", default=PREVIOUS, show_default=True, metavar="REF", help="Commit of the previous version.")
@click.option("--attack", "attacks", multiple=True, metavar="ATTACK", help="Only this attack; may be repeated.")
@click.option("--adversary/--no-adversary", "hostile", default=True, help="Whether a hostile account attacks.")
@click.option("--adversary-only", "quiet", is_flag=True, help="Inject no fault.")
@click.option("--endpoint/--no-endpoint", "spills", default=True, help="Whether turns may spill to an endpoint.")
@click.option("--list", "listing", is_flag=True, help="List the faults and the attacks.")
@click.option("--planted", "plant", is_flag=True, help="Show that broken builds are caught; --only selects some.")
def main(file: Path | None, listing: bool, plant: bool, attacks: Sequence[str], hostile: bool, **values: Any) -> None:
    """Break Sangha's processes and servers while clients work, on a stack of its own; nothing else is touched.

    Exits with 1 when a guarantee was violated. Equal seed, length and faults give the same faults in the same order.
    """
    if values["seed"] is None:
        values["seed"] = random.randrange(1_000_000)
    if plant:
        sys.exit(show_planted(values["only"]))
    options = RunOptions(**values, attacks=attacks_of(attacks, hostile=hostile))
    if options.previous_commit is None:
        click.echo("chaos: there is no history of commits: the fault two-versions is left out", err=True)
    table = faults_of(options)
    if listing:
        described = [(name, each.description) for entries in (table, ATTACKS) for name, each in entries.items()]
        click.echo("\n".join(f"{name:<18} {description}" for name, description in described))
        return
    report = ChaosReport(machine.describe(), options.broker, options.seed, options.minutes, options.command)
    progress = Progress()
    code = exit_code_of("bench.chaos", progress, lambda: run_chaos(options, report, progress))
    if report.injected or report.attacks or report.violations:
        click.echo(report.text())
    write_json(file, report.json())
    sys.exit(code)


def faults_of(options: RunOptions) -> Mapping[str, Fault]:
    """Return the faults to inject. Raises UsageError for an unknown name."""
    try:
        return options.faults()
    except KeyError as error:
        raise click.UsageError(f"There is no fault {error} over {options.broker}; see --list.") from None


def attacks_of(names: Sequence[str], *, hostile: bool) -> Sequence[str]:
    """Return the attacks of a run: those named, or all. Raises UsageError for an unknown name."""
    for name in names:
        if name not in ATTACKS:
            raise click.UsageError(f"There is no attack {name!r}; see --list.")
    return tuple(names or ATTACKS) if hostile else ()


def show_planted(names: Sequence[str]) -> int:
    """Run over each planted bug; returns the exit code: 1 where one was not caught."""
    progress, missed = Progress(), 0
    for result in run_planted([bug for bug in PLANTED if bug.name in names or not names], progress):
        progress.clear()
        click.echo(result.line())
        missed += not result.caught
    return FAILED if missed else 0


def run_chaos(options: RunOptions, report: ChaosReport, progress: Progress) -> int:
    """Run, and print where the logs are when the run could not be finished; returns the exit code."""
    try:
        run.run(options, report, progress)
    except ConfigurationError:
        raise
    except SanghaError as error:
        click.echo(f"chaos: {error}; the logs of all processes are in {report.logs}", err=True)
        return FAILED
    except Exception:
        click.echo(f"chaos: internal error; the logs of all processes are in {report.logs}", err=True)
        raise
    return FAILED if report.violations else 0


def interrupt(*_: object) -> None:
    """Interrupt once; the cleanup that follows cannot be interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    main()

"""`python -m bench`: measure all scenarios, or those named, and print one table."""

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from bench import machine
from bench.chaos.attacks import ATTACKS
from bench.command import FAILED, HELP, broker_option, exit_code_of, file_option, servers, write_json
from bench.harness.stack import BrokerName
from bench.progress import Progress
from bench.scenario import Bench
from bench.scenarios import SCENARIOS
from bench.table import BenchReport
from ops.exit_codes import INTERRUPTED


@click.command(context_settings=HELP)
@click.argument("names", nargs=-1, metavar="[SCENARIO]…")
@broker_option
@file_option("--json", "file", "Write all samples to this file too.")
@click.option("--full", is_flag=True, help="Measure at the sizes that take long.")
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    type=click.Choice([*ATTACKS]),
    metavar="NAME",
    help="Measure only this attack in `adversary` (repeatable); `python -m bench.chaos --list` describes them.",
)
@click.option("--list", "listing", is_flag=True, help="List the scenarios.")
def main(
    names: Sequence[str], broker: BrokerName, file: Path | None, full: bool, attacks: Sequence[str], listing: bool
) -> None:
    """Measure Sangha on this machine, on servers of its own in a temporary folder; nothing else is touched.

    Exits with 1 when a scenario failed or a guarantee was violated; a missed goal is only reported.
    """
    if listing:
        click.echo("\n".join(f"{name:<18} {scenario.description}" for name, scenario in SCENARIOS.items()))
        return
    if unknown := set(names) - set(SCENARIOS):
        raise click.UsageError(f"There is no scenario {', '.join(sorted(unknown))}; see --list.")
    if attacks and "adversary" not in names:
        raise click.UsageError("--attack selects attacks of the scenario `adversary`: name it.")
    report = BenchReport(machine.describe(), broker)
    code = run(report, [name for name in SCENARIOS if name in names or not names], broker, full, attacks)
    if report.figures or report.failures:
        click.echo(report.text())
    write_json(file, report.json())
    sys.exit(code)


def run(
    report: BenchReport, names: Sequence[str], broker: BrokerName, full: bool = False, attacks: Sequence[str] = ()
) -> int:
    """Measure, and return the exit code. What was measured before an interruption is in the report."""
    progress = Progress()

    def work() -> int:
        with servers(broker, progress) as stack:
            for name in names:
                measure(report, name, Bench(stack, progress, full, attacks))
        return FAILED if report.failures else 0

    return exit_code_of("bench", progress, work)


def measure(report: BenchReport, name: str, bench: Bench) -> None:
    """Measure one scenario. A failure is reported, and the next scenario is measured."""
    bench.progress.begin(name)
    began = time.monotonic()
    try:
        report.figures[name] = SCENARIOS[name].measure(bench)
    except Exception as error:  # noqa: BLE001 - printed below the table
        report.failures[name] = f"{type(error).__name__}: {error}"
    report.seconds[name] = time.monotonic() - began


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(INTERRUPTED))
    main()

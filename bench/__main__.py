"""`python -m bench`: measure all, or what is named, and print one table."""

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import orjson

from bench import machine
from bench.bench import Bench
from bench.command import FAILED, INTERRUPTED, carried_out, servers
from bench.progress import Progress
from bench.scenarios import SCENARIOS
from bench.stack import BrokerName
from bench.table import Report

NO_RABBITMQ = "; or measure without it: python -m bench --broker redis"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[SCENARIO]…")
@click.option("--broker", type=click.Choice(["rabbitmq", "redis"]), default="rabbitmq", help="What carries the queue.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write all samples there too.")
@click.option("--full", is_flag=True, help="At the sizes that take long.")
@click.option("--list", "listing", is_flag=True, help="List the scenarios.")
def main(names: Sequence[str], broker: BrokerName, file: Path | None, full: bool, listing: bool) -> None:
    """Measure Sangha on this machine, on servers of its own in a temporary folder; nothing else is touched.

    Ends with 1 when something could not be measured, or broke a promise; a goal that is missed is only said.
    """
    if listing:
        click.echo("\n".join(f"{name:<18} {scenario.what}" for name, scenario in SCENARIOS.items()))
        return
    if unknown := set(names) - set(SCENARIOS):
        raise click.UsageError(f"There is no scenario {', '.join(sorted(unknown))}; see --list.")
    report = Report(machine.look(), broker)
    code = run(report, [name for name in SCENARIOS if name in names or not names], broker, full)
    if report.figures or report.failures:
        click.echo(report.text())
    if file is not None:
        file.write_bytes(orjson.dumps(report.json(), option=orjson.OPT_INDENT_2))
    sys.exit(code)


def run(report: Report, names: Sequence[str], broker: BrokerName, full: bool = False) -> int:
    """Measure; returns the exit code. What was measured before an interruption stands in the report."""
    progress = Progress()

    def work() -> int:
        with servers(broker, progress) as stack:
            for name in names:
                measure(report, name, Bench(stack, progress, full))
        return FAILED if report.failures else 0

    return carried_out("bench", NO_RABBITMQ, progress, work)


def measure(report: Report, name: str, bench: Bench) -> None:
    """Measure one scenario; the others are measured whatever becomes of it."""
    bench.progress.begin(name)
    began = time.monotonic()
    try:
        report.figures[name] = SCENARIOS[name].measure(bench)
    except Exception as error:  # noqa: BLE001 - it stands below the table
        report.failures[name] = f"{type(error).__name__}: {error}"
    report.seconds[name] = time.monotonic() - began


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(INTERRUPTED))
    main()

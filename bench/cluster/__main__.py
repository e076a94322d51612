"""`python -m bench.cluster`: break a cluster of hosts by a seed, and report the violated guarantees."""

import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench import machine
from bench.chaos.__main__ import faults_of, interrupt
from bench.chaos.previous import PREVIOUS
from bench.chaos.report import ChaosReport
from bench.cluster import run
from bench.cluster.faults import faults
from bench.cluster.namespaces import enter_private_namespaces
from bench.cluster.run import ClusterOptions
from bench.cluster.stack import HOSTS, SLOTS
from bench.command import FAILED, HELP, exit_code_of, file_option, write_json
from bench.progress import Progress
from models.platform.errors import ConfigurationError, SanghaError


@click.command(context_settings=HELP)
@click.option("--seed", type=int, help="Determines the plan; random by default.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=5, show_default=True, help="Duration.")
@click.option("--only", multiple=True, metavar="FAULT", help="Inject only this fault; may be repeated.")
@file_option("--json", "file", "Write the report to this file too.")
@click.option("--slots", type=click.IntRange(1, 64), default=SLOTS, show_default=True, help="Of each of two engines.")
@click.option(
    "--patience",
    type=click.FloatRange(min=1),
    default=180,
    show_default=True,
    metavar="SECONDS",
    help="How long work may take to end once all faults are healed.",
)
@click.option(
    "--previous",
    default=PREVIOUS,
    show_default=True,
    metavar="REF",
    help="Begin with this commit, and roll this version out; empty: begin with this version.",
)
@click.option("--list", "listing", is_flag=True, help="List the hosts and the faults.")
def main(file: Path | None, listing: bool, only: Sequence[str], **values: Any) -> None:
    """Break a cluster of hosts, in network namespaces of this machine, while clients work. Needs root.

    Exits with 1 when a guarantee was violated. Equal seed, length and faults give the same faults in the same order.
    """
    if listing:
        click.echo("hosts: " + ", ".join(HOSTS))
        click.echo("\n".join(f"{name:<18} {each.description}" for name, each in faults().items()))
        return
    if values["seed"] is None:
        values["seed"] = random.randrange(1_000_000)
        sys.orig_argv += ["--seed", str(values["seed"])]
    options = ClusterOptions(**values, only=only, broker="rabbitmq", attacks=(), spills=False)
    faults_of(options)
    report = ChaosReport(machine.describe(), options.broker, options.seed, options.minutes, options.command)
    progress = Progress()
    code = exit_code_of("bench.cluster", progress, lambda: run_cluster(options, report, progress))
    if report.injected or report.violations:
        click.echo(report.text())
    write_json(file, report.json())
    sys.exit(code)


def run_cluster(options: ClusterOptions, report: ChaosReport, progress: Progress) -> int:
    """Run in private namespaces; returns the exit code."""
    enter_private_namespaces()
    try:
        run.run(options, report, progress)
    except ConfigurationError:
        raise
    except SanghaError as error:
        click.echo(f"cluster: {error}; the logs of all processes are in {report.logs}", err=True)
        return FAILED
    return FAILED if report.violations else 0


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    main()

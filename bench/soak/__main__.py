"""`python -m bench.soak`: load the platform steadily for a while, and report whether anything grows that should not."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click

from bench import machine
from bench.command import FAILED, HELP, broker_option, exit_code_of, file_option, servers, write_json
from bench.harness.stack import LIGHT_POOLS, BrokerName, RunningPlatform, Stack
from bench.load import closed_loop
from bench.progress import Progress
from bench.soak.accounts import SoakAccounts
from bench.soak.monitor import Monitor
from bench.soak.open_loop import OpenLoop
from bench.soak.operations import SCRIPT
from bench.soak.picture import draw
from bench.soak.report import SoakReport
from bench.soak.retention import check_retention, wait_for_jobs
from models.platform.database import Database

#: Number of accounts that operations are spread over, and of slots of the engine.
ACCOUNTS, SLOTS = 12, 16

#: Turns that measure the machine's capacity, with so many clients, and the share of the capacity that a soak uses.
CAPACITY_TURNS, CLIENTS, SHARE = 240, 16, 1 / 3

#: Seconds between two readings; a run of less than four minutes has as many readings, down to the shortest interval.
INTERVAL, READINGS, SHORTEST_INTERVAL = 1.0, 240, 0.1

PICTURE = Path("soak.png")


@click.command(context_settings=HELP)
@click.option("--minutes", type=click.FloatRange(0.05, 10_000), default=10, show_default=True, help="The duration.")
@click.option(
    "--rate", type=click.FloatRange(0.1, 1000), help="Operations a second; by default a third of the capacity."
)
@broker_option
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), default=PICTURE, show_default=True,
              help="The file of the picture.")  # fmt: skip
@file_option("--json", "file", "Write all readings to this file too.")
@click.option("--seed", type=int, default=1, show_default=True, help="Determines the order of the operations.")
def main(minutes: float, rate: float | None, broker: BrokerName, picture: Path, file: Path | None, seed: int) -> None:
    """Load Sangha steadily with operations of all kinds, on servers of its own in a temporary folder.

    Exits with 0 when all is steady, and with 1 when something grows or fails.
    """
    for path in (picture, file):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.UsageError(f"There is no folder {path.absolute().parent}.")
    report = SoakReport(machine.describe(), broker, minutes, seed, rate or 0.0)
    code = run(report, broker)
    if report.series.points:
        draw(report, picture)
        click.echo(report.text())
        click.echo(f"The picture: {picture}")
    write_json(file, report.json())
    sys.exit(code)


def run(report: SoakReport, broker: BrokerName) -> int:
    """Soak, and return the exit code. What was read before an interruption is in the report."""
    progress = Progress()

    def work() -> int:
        with servers(broker, progress) as stack:
            soak(report, stack, progress)
        return 0 if report.steady else FAILED

    return exit_code_of("bench.soak", progress, work)


def soak(report: SoakReport, stack: Stack, progress: Progress) -> None:
    """Load and monitor the platform, and check what its pruning leaves."""
    changes: dict[str, Any] = {"engine": "scripted", "script": SCRIPT, "slots": SLOTS, "visits_per_minute": 1_000_000}
    with stack.platform(light_pools=LIGHT_POOLS, **changes) as platform:
        progress.begin("soak")
        report.rate = report.rate or capacity(platform, progress) * SHARE
        accounts = SoakAccounts(platform.address, ACCOUNTS)
        with monitoring(report, stack), operations(report, accounts):
            wait(report, progress)
        progress.report("checking what the pruning leaves")
        try:
            with closing(Database(platform.settings.postgres_dsn, size=1, name="soak")) as database:
                report.retention = check_retention(database)
        except Exception as error:  # noqa: BLE001 - it is in the report
            report.failures.append(f"{type(error).__name__}: {error}")


def capacity(platform: RunningPlatform, progress: Progress) -> float:
    """Measure the turns a second that this machine runs, with recall, until they are remembered."""
    progress.report("measuring the capacity of this machine")
    bodies = [{"input": f"I lost the key number {number}."} for number in range(CAPACITY_TURNS)]
    tokens, began = platform.tokens(CLIENTS), time.monotonic()
    closed_loop(platform.address, tokens, bodies)
    with closing(Database(platform.settings.postgres_dsn, size=1, name="soak")) as database:
        wait_for_jobs(database)
    return CAPACITY_TURNS / (time.monotonic() - began)


@contextmanager
def monitoring(report: SoakReport, stack: Stack) -> Iterator[None]:
    """Read all series until the end of the block."""
    interval = min(INTERVAL, max(SHORTEST_INTERVAL, report.minutes * 60 / READINGS))
    monitor = Monitor(stack, report.operations, interval)
    report.series = monitor.series
    try:
        yield
    finally:
        monitor.stop()
        if monitor.error is not None:
            report.failures.append(f"monitoring failed: {type(monitor.error).__name__}: {monitor.error}")


@contextmanager
def operations(report: SoakReport, accounts: SoakAccounts) -> Iterator[None]:
    """Start operations steadily until the end of the block, then wait for those that run."""
    loop = OpenLoop(accounts, report.operations, report.rate, report.seed)
    try:
        yield
    finally:
        loop.stop()
        accounts.close()


def wait(report: SoakReport, progress: Progress) -> None:
    """Wait for the run's duration, and report progress."""
    began, seconds = time.monotonic(), report.minutes * 60
    while (left := began + seconds - time.monotonic()) > 0:
        counts = report.operations.counts()
        failed = f", {counts.failed:,} failed ({report.operations.errors[-1]:.100})" if counts.failed else ""
        progress.report(
            f"{(seconds - left) / 60:.1f} of {report.minutes:g} min, {counts.done:,} operations done{failed}"
        )
        time.sleep(min(1.0, left))


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT):  # shells start background processes with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    main()

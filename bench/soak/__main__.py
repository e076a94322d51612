"""`python -m bench.soak`: load the platform steadily for a while, and say whether anything grows that should not."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import orjson

from bench import machine
from bench.command import FAILED, carried_out, servers
from bench.load import closed_loop
from bench.progress import Progress
from bench.soak.pace import Pace
from bench.soak.people import People
from bench.soak.picture import draw
from bench.soak.report import Report
from bench.soak.retention import drained, retention
from bench.soak.watch import Watch
from bench.soak.works import SCRIPT
from bench.stack import BESIDE, BrokerName, Platform, Stack
from models.platform.database import Database

NO_RABBITMQ = "; or soak without it: python -m bench.soak --broker redis"

#: Accounts that the work is spread over, and answers at once.
ACCOUNTS, SLOTS = 12, 16

#: Turns that tell what this machine can do, by so many clients; and the share of it that a soak asks for.
TRIALS, CLIENTS, SHARE = 240, 16, 1 / 3

#: Seconds between two readings, of a run of four minutes and more; a shorter one is read as often, down to a tenth.
EVERY, READINGS, OFTEN = 1.0, 240, 0.1

PICTURE = Path("soak.png")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(0.05, 10_000), default=10, show_default=True, help="How long.")
@click.option(
    "--rate", type=click.FloatRange(0.1, 1000), help="Pieces of work a second; else a third of what goes here."
)
@click.option("--broker", type=click.Choice(["rabbitmq", "redis"]), default="rabbitmq", help="What carries the queue.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), default=PICTURE, show_default=True,
              help="Where the picture goes.")  # fmt: skip
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write all readings there too.")
@click.option("--seed", type=int, default=1, show_default=True, help="What decides the order of the work.")
def main(minutes: float, rate: float | None, broker: BrokerName, picture: Path, file: Path | None, seed: int) -> None:
    """Load Sangha steadily with work of all kinds, on servers of its own in a temporary folder.

    Ends with 0 when all is steady, and with 1 when something grows or fails.
    """
    for place in (picture, file):
        if place is not None and not place.absolute().parent.is_dir():
            raise click.UsageError(f"There is no folder {place.absolute().parent}.")
    report = Report(machine.look(), broker, minutes, seed, rate or 0.0)
    code = run(report, broker)
    if report.records.points:
        draw(report, picture)
        click.echo(report.text())
        click.echo(f"The picture: {picture}")
    if file is not None:
        file.write_bytes(orjson.dumps(report.json(), option=orjson.OPT_INDENT_2))
    sys.exit(code)


def run(report: Report, broker: BrokerName) -> int:
    """Soak; returns the exit code. What was read before an interruption stands in the report."""
    progress = Progress()

    def work() -> int:
        with servers(broker, progress) as stack:
            soak(report, stack, progress)
        return 0 if report.steady else FAILED

    return carried_out("soak", NO_RABBITMQ, progress, work)


def soak(report: Report, stack: Stack, progress: Progress) -> None:
    """Load, watch, and see what stays."""
    changes: dict[str, Any] = {"engine": "scripted", "script": SCRIPT, "slots": SLOTS, "visits_per_minute": 1_000_000}
    with stack.platform(beside=BESIDE, **changes) as platform:
        progress.begin("soak")
        report.rate = report.rate or capacity(platform, progress) * SHARE
        people = People(platform.address, ACCOUNTS)
        with watched(report, stack), paced(report, people):
            wait(report, progress)
        progress.say("looking at what stays")
        database = Database(platform.settings.postgres_dsn, size=1, name="soak")
        try:
            report.retention = retention(database)
        except Exception as error:  # noqa: BLE001 - it stands in the report
            report.failures.append(f"{type(error).__name__}: {error}")
        finally:
            database.close()


def capacity(platform: Platform, progress: Progress) -> float:
    """Turns a second that go through here now, reminded of earlier ones and remembered to the end."""
    progress.say("measuring what this machine can do")
    bodies = [{"input": f"I lost the key number {number}."} for number in range(TRIALS)]
    tokens, began = platform.tokens(CLIENTS), time.monotonic()
    closed_loop(platform.address, tokens, bodies)
    database = Database(platform.settings.postgres_dsn, size=1, name="soak")
    try:
        drained(database)
    finally:
        database.close()
    return TRIALS / (time.monotonic() - began)


@contextmanager
def watched(report: Report, stack: Stack) -> Iterator[None]:
    """Everything is read until the end of the block."""
    every = min(EVERY, max(OFTEN, report.minutes * 60 / READINGS))
    watch = Watch(stack, report.ledger, every)
    report.records = watch.records
    try:
        yield
    finally:
        watch.stop()
        if watch.error is not None:
            report.failures.append(f"the watch ended: {type(watch.error).__name__}: {watch.error}")


@contextmanager
def paced(report: Report, people: People) -> Iterator[None]:
    """Work begins steadily until the end of the block, and is ended then."""
    pace = Pace(people, report.ledger, report.rate, report.seed)
    try:
        yield
    finally:
        pace.stop()
        people.close()


def wait(report: Report, progress: Progress) -> None:
    """Let it go on for its time, and say how far it is."""
    began, seconds = time.monotonic(), report.minutes * 60
    while (left := began + seconds - time.monotonic()) > 0:
        count = report.ledger.count()
        failed = f", {count.failed:,} failed ({report.ledger.why[-1]:.100})" if count.failed else ""
        progress.say(
            f"{(seconds - left) / 60:.1f} of {report.minutes:g} min, {count.done:,} pieces of work done{failed}"
        )
        time.sleep(min(1.0, left))


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT):  # the latter is ignored by what a shell starts in the background
        signal.signal(number, signal.default_int_handler)
    main()

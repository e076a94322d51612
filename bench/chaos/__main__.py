"""`python -m bench.chaos`: break Sangha on purpose, by a seed, and say which promises did not hold."""

import random
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import orjson

from bench import machine
from bench.chaos import run
from bench.chaos.arena import SLOTS
from bench.chaos.faults import Fault
from bench.chaos.planted import PLANTED, demonstrate, line
from bench.chaos.report import Report
from bench.chaos.run import Wanted
from bench.command import FAILED, carried_out
from bench.progress import Progress
from models.platform.errors import ConfigurationError, SanghaError

NO_RABBITMQ = "; or do it without: python -m bench.chaos --broker redis"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=int, help="Says what happens when. Drawn unless given.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=4, show_default=True, help="How long.")
@click.option("--broker", type=click.Choice(["rabbitmq", "redis"]), default="rabbitmq", help="What carries the queue.")
@click.option("--only", multiple=True, metavar="FAULT", help="Strike this fault and no other; may be repeated.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write all of it there too.")
@click.option("--slots", type=click.IntRange(1, 64), default=SLOTS, show_default=True, help="Of each of two engines.")
@click.option(
    "--patience",
    type=click.FloatRange(min=1),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="How long what was begun may take to end, once all is whole.",
)
@click.option("--list", "listing", is_flag=True, help="List the faults.")
@click.option("--planted", "plant", is_flag=True, help="Show that broken builds are caught; --only names some of them.")
def main(file: Path | None, listing: bool, plant: bool, **options: Any) -> None:
    """Break Sangha's parts and servers while clients work, on a stack of its own; nothing else is touched.

    Ends with 1 when a promise was broken. The same seed, length and faults break the same things in the same order.
    """
    if options["seed"] is None:
        options["seed"] = random.randrange(1_000_000)
    if plant:
        sys.exit(show_planted(options["only"]))
    wanted = Wanted(**options)
    table = known(wanted)
    if listing:
        click.echo("\n".join(f"{name:<18} {fault.what}" for name, fault in table.items()))
        return
    report = Report(machine.look(), wanted.broker, wanted.seed, wanted.minutes, wanted.command)
    code = try_out(wanted, report)
    if report.struck or report.violations:
        click.echo(report.text())
    if file is not None:
        file.write_bytes(orjson.dumps(report.json(), option=orjson.OPT_INDENT_2))
    sys.exit(code)


def known(wanted: Wanted) -> Mapping[str, Fault]:
    """The faults to strike. Raises UsageError for a name that is none."""
    try:
        return wanted.faults()
    except KeyError as error:
        raise click.UsageError(f"There is no fault {error} over {wanted.broker}; see --list.") from None


def show_planted(names: Sequence[str]) -> int:
    """Run over each planted bug; returns the exit code: 1 where one is not caught."""
    progress, blind = Progress(), 0
    for verdict in demonstrate([planted for planted in PLANTED if planted.name in names or not names], progress):
        progress.clear()
        click.echo(line(verdict))
        blind += not verdict.caught
    return FAILED if blind else 0


def try_out(wanted: Wanted, report: Report) -> int:
    """Fill the report; returns the exit code."""
    progress = Progress()
    return carried_out("chaos", NO_RABBITMQ, progress, lambda: broken(wanted, report, progress))


def broken(wanted: Wanted, report: Report, progress: Progress) -> int:
    """The run itself, and where its logs are when it can't be finished."""
    try:
        run.run(wanted, report, progress)
    except ConfigurationError:
        raise
    except SanghaError as error:
        click.echo(f"chaos: {error}; the logs of all parts are in {report.logs}", err=True)
        return FAILED
    except Exception:
        click.echo(f"chaos: broke itself; the logs of all parts are in {report.logs}", err=True)
        raise
    return FAILED if report.violations else 0


def leave(*_: object) -> None:
    """End in good order, once: what follows leaves nothing behind, if it is let be."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    main()

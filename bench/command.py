"""What the measurement commands share: options, exit codes, and servers of their own."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import orjson

from bench.harness.stack import BrokerName, Stack, running_stack
from bench.progress import Progress
from models.platform.errors import ConfigurationError
from ops.exit_codes import INTERRUPTED, MISCONFIGURED

#: The exit code after a failed check; `ops.exit_codes` has the others.
FAILED = 1

HELP = {"help_option_names": ["-h", "--help"]}

broker_option = click.option(
    "--broker", type=click.Choice(["rabbitmq", "redis"]), default="rabbitmq", help="The broker that carries the queue."
)


def file_option(name: str, variable: str, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return an option that takes the path of a file to write."""
    return click.option(name, variable, type=click.Path(dir_okay=False, path_type=Path), help=text)


def exit_code_of(module: str, progress: Progress, work: Callable[[], int]) -> int:
    """Do the work, and return its exit code. Print one line when it cannot be done here, or was interrupted."""
    try:
        return work()
    except ConfigurationError as error:
        hint = f"; or run without it: python -m {module} --broker redis" if "RabbitMQ is missing" in str(error) else ""
        click.echo(f"{module}: {error}{hint}", err=True)
        return MISCONFIGURED
    except KeyboardInterrupt:
        click.echo(f"{module}: interrupted", err=True)
        return INTERRUPTED
    finally:
        progress.clear()


@contextmanager
def servers(broker: BrokerName, progress: Progress) -> Iterator[Stack]:
    """Run servers until the end of the block; stopping them cannot be interrupted."""
    progress.report("starting the servers")
    with running_stack(broker) as stack:
        try:
            yield stack
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def write_json(file: Path | None, report: object) -> None:
    """Write a report, if a file was named."""
    if file is not None:
        file.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))

"""What all commands of this room have in common: how they end, and servers of their own."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from bench.progress import Progress
from bench.stack import BrokerName, Stack, standing
from models.platform.errors import ConfigurationError

#: Exit codes: what was looked at is not as it should be, it can't be looked at here, somebody has stopped it.
FAILED, MISCONFIGURED, INTERRUPTED = 1, 2, 130


def carried_out(name: str, without: str, progress: Progress, work: Callable[[], int]) -> int:
    """Do the work, which tells an exit code; one line where it can't be done here, or was interrupted.

    without  what to do where RabbitMQ is missing
    """
    try:
        return work()
    except ConfigurationError as error:
        hint = without if "RabbitMQ is missing" in str(error) else ""
        click.echo(f"{name}: {error}{hint}", err=True)
        return MISCONFIGURED
    except KeyboardInterrupt:
        click.echo(f"{name}: interrupted", err=True)
        return INTERRUPTED
    finally:
        progress.clear()


@contextmanager
def servers(broker: BrokerName, progress: Progress) -> Iterator[Stack]:
    """Servers until the end of the block, which then go in peace."""
    progress.say("starting the servers")
    with standing(broker) as stack:
        try:
            yield stack
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # what follows leaves nothing behind, if it is let be

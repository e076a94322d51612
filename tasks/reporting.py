"""The actors of the reporting pool."""

from functools import partial

from models.object_store import Objects
from models.running import Handler, plain_ending
from pipelines.reporting import export
from tasks.job_runner import JobRunner


def declare(runner: JobRunner) -> int:
    """Declare the actors; returns how many may run at once."""
    objects = Objects.open(runner.settings)
    runner.declare("account.export", Handler(run=partial(export.run, objects), end=plain_ending))
    return 1

"""The actors of the reporting pool."""

from functools import partial

from models.jobs.attempt_context import Handler, plain_ending
from models.platform.object_store import Objects
from pipelines.reporting import export
from tasks.job_runner import JobRunner


def declare(runner: JobRunner) -> int:
    """Declare the actors; returns how many may run at once."""
    objects = Objects.open(runner.settings)
    runner.declare("account.export", Handler(run=partial(export.run, objects), end=plain_ending))
    return 1

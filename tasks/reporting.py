"""The actors of the reporting pool."""

from functools import partial

from models.jobs.attempt_context import Handler, plain_ending
from models.platform.object_store import ObjectStore
from pipelines.reporting import export
from tasks.job_runner import JobRunner

#: Threads, of which an account uses one.
THREADS = 2


def declare_actors(runner: JobRunner) -> dict[str, int]:
    """Declare the actors. Returns the number of threads by queue."""
    objects = ObjectStore.open(runner.settings)
    runner.declare("account.export", Handler(run=partial(export.run, objects), end=plain_ending))
    return {"reporting": THREADS}

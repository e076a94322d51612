"""The actors of the reporting pool."""

from functools import partial

from models.jobs.attempt_context import Handler, plain_ending
from models.platform.object_store import ObjectStore
from pipelines.batches import run as batches
from pipelines.batches.worker import BatchWorker
from pipelines.reporting import build, export, update_rollups
from pipelines.reporting.build_report import build_report
from tasks.job_runner import JobRunner

#: Threads by queue, of which an account uses all but one. A batch needs one for a moment each second, and for the time
#: in which its files are read and written.
THREADS = {"reporting": 2, "reporting_batch": 3}


def declare_actors(runner: JobRunner) -> dict[str, int]:
    """Declare the actors. Returns the number of threads by queue."""
    objects = ObjectStore.open(runner.settings)
    runner.declare("account.export", Handler(run=partial(export.run, objects), end=plain_ending))
    run_batch = partial(batches.run, BatchWorker(runner.settings, objects), runner.client)
    runner.declare("batch.run", Handler(run=run_batch, end=batches.end))
    build_file = partial(build.run, objects, runner.settings.home / "fonts", build_report)
    runner.declare("report.build", Handler(run=build_file, end=plain_ending))
    runner.declare("rollups.update", Handler(run=update_rollups.run, end=plain_ending))
    return THREADS

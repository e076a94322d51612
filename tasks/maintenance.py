"""The actors of the maintenance pool."""

from functools import partial

from models.jobs.attempt_context import Handler, plain_ending
from models.platform.object_store import ObjectStore
from pipelines.maintenance import erase, prune
from pipelines.memory import index_space
from pipelines.memory.meditation import schedule_meditations
from tasks.job_runner import JobRunner


def declare_actors(runner: JobRunner) -> dict[str, int]:
    """Declare the actors. Returns the number of threads by queue."""
    objects = ObjectStore.open(runner.settings)
    runner.declare("maintenance.prune", Handler(run=partial(prune.run, objects), end=plain_ending))
    runner.declare("data.erase", Handler(run=partial(erase.run, runner.client, objects), end=plain_ending))
    runner.declare("memory.index", Handler(run=index_space.run, end=plain_ending))
    runner.declare(
        "meditation.nightly", Handler(run=partial(schedule_meditations.run, runner.settings), end=plain_ending)
    )
    return {"maintenance": 1}

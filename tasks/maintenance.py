"""The actors of the maintenance pool."""

from functools import partial

from models.jobs.attempt_context import Handler, plain_ending
from models.platform.compatibility import Compatibility
from models.platform.object_store import ObjectStore
from pipelines.delivery.mailers import open_mailbox
from pipelines.maintenance import archive_jobs, erase, prune, sweep_objects
from pipelines.memory import index_space
from pipelines.memory.meditation import schedule_meditations
from tasks.job_runner import JobRunner

#: Threads, of which an erasure uses one.
THREADS = 2


def declare_actors(runner: JobRunner) -> dict[str, int]:
    """Declare the actors. Returns the number of threads by queue."""
    objects, compatibility = ObjectStore.open(runner.settings), Compatibility(runner.database)
    mailbox = open_mailbox(runner.settings)
    stores = erase.Stores(runner.client, objects, mailbox)
    runner.declare("maintenance.prune", Handler(run=partial(prune.run, objects, mailbox), end=plain_ending))
    runner.declare("maintenance.sweep_objects", Handler(run=partial(sweep_objects.run, objects), end=plain_ending))
    runner.declare("maintenance.archive_jobs", Handler(run=partial(archive_jobs.run, compatibility), end=plain_ending))
    runner.declare("data.erase", Handler(run=partial(erase.run, stores), end=plain_ending))
    runner.declare("memory.index", Handler(run=index_space.run, end=plain_ending))
    runner.declare(
        "meditation.nightly", Handler(run=partial(schedule_meditations.run, runner.settings), end=plain_ending)
    )
    return {"maintenance": THREADS}

"""The actors of the maintenance pool."""

from functools import partial

from models.object_store import Objects
from models.running import Handler, plain_ending
from pipelines.maintenance import erase, prune
from pipelines.memory import indexing
from pipelines.memory.meditation import rounds
from tasks.workshop import Workshop


def declare(workshop: Workshop) -> int:
    """Declare the actors; returns how many may run at once."""
    objects = Objects.open(workshop.settings)
    workshop.declare("maintenance.prune", Handler(run=partial(prune.run, objects), end=plain_ending))
    workshop.declare("data.erase", Handler(run=partial(erase.run, workshop.client, objects), end=plain_ending))
    workshop.declare("memory.index", Handler(run=indexing.run, end=plain_ending))
    workshop.declare("meditation.nightly", Handler(run=partial(rounds.run, workshop.settings), end=plain_ending))
    return 1

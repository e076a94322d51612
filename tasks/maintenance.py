"""The actors of the maintenance pool."""

from models.running import Handler, plain_ending
from pipelines.maintenance import prune
from tasks.workshop import Workshop


def declare(workshop: Workshop) -> int:
    """Declare the actors; returns how many may run at once."""
    workshop.declare("maintenance.prune", Handler(run=prune.run, end=plain_ending))
    return 1

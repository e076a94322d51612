"""The actors of the reporting pool."""

from functools import partial

from models.object_store import Objects
from models.running import Handler, plain_ending
from pipelines.reporting import export
from tasks.workshop import Workshop


def declare(workshop: Workshop) -> int:
    """Declare the actors; returns how many may run at once."""
    objects = Objects.open(workshop.settings)
    workshop.declare("account.export", Handler(run=partial(export.run, objects), end=plain_ending))
    return 1

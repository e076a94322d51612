"""A bug to plant: edits of the source, and the run that must detect it."""

from collections.abc import Sequence
from dataclasses import dataclass

#: Seconds that work has to end in a broken build: longer than any lease, or retry of a lost message.
PATIENCE = 45


@dataclass(frozen=True, slots=True)
class Edit:
    """The replacement of a text that occurs exactly once in a file."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """A bug, and the run that must detect it: faults, seed and length, and the seconds that its work has to end.

    attacks   of an adversary that must detect it, without any fault; none: the run has no adversary
    spills    whether turns may spill to an endpoint
    payments  of a run of `bench.chaos.charges`, which must detect it instead; 0: a run of `bench.chaos`
    """

    name: str
    description: str
    edits: Sequence[Edit]
    only: Sequence[str]
    broker: str = "rabbitmq"
    slots: int = 4
    seed: int = 7
    minutes: float = 0.75
    patience: float = PATIENCE
    attacks: Sequence[str] = ()
    spills: bool = False
    payments: int = 0

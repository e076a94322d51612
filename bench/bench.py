"""What a scenario is, and what it gets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.figures import Figure
from bench.progress import Progress
from bench.stack import Stack


@dataclass(frozen=True, slots=True)
class Bench:
    """A stack to borrow platforms from, and a way to say how far it is; `full` asks for the sizes that take long."""

    stack: Stack
    progress: Progress
    full: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something to measure. What can't be measured, because the platform breaks a promise, raises Broken."""

    what: str
    measure: Callable[[Bench], Sequence[Figure]]

"""A scenario, and what it gets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.figures import Figure
from bench.harness.stack import Stack
from bench.progress import Progress


@dataclass(frozen=True, slots=True)
class Bench:
    """A stack to start platforms on, and where to report progress; `full` selects the sizes that take long.

    attacks  the attacks that `adversary` measures; all if empty
    """

    stack: Stack
    progress: Progress
    full: bool = False
    attacks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something to measure. `measure` raises CheckFailed when the platform violates a guarantee."""

    description: str
    measure: Callable[[Bench], Sequence[Figure]]

"""What a fault is: it affects one of its targets, lasts for some seconds, and is healed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

#: Seconds that a killed process stays dead, at least and at most: a supervisor is fast, an orchestrator is not.
DEAD = (0.2, 3.0)

#: Seconds that a link, or an endpoint, is disturbed.
DISTURBED = (2.0, 7.0)

#: Seconds until a fault without a duration is healed.
AT_ONCE = (0.05, 0.05)

#: Affects a target of a stack: of that of `bench.chaos` or of `bench.cluster`.
FaultStep = Callable[[Any, str], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """A way to break something.

    targets   what it may affect: processes, links or ways in which an endpoint fails, several at once joined by `+`
    alone     never overlaps with another fault
    duration  seconds until it is healed, at least and at most
    """

    name: str
    description: str
    targets: Sequence[str]
    duration: tuple[float, float]
    inject: FaultStep
    heal: FaultStep
    alone: bool = False


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """A fault that was injected, by time.monotonic; `healed_at` is when its target worked again."""

    name: str
    target: str
    struck_at: float
    healed_at: float


def names_in(target: str) -> list[str]:
    """Return the names of the processes or links of a target."""
    return target.split("+")


def on_each(act: Callable[[Any, str], None]) -> FaultStep:
    """Return a step that acts on each process or link of its target."""

    def step(stack: Any, target: str) -> None:
        for name in names_in(target):
            act(stack, name)

    return step


def do_nothing(stack: object, target: str) -> None:
    """Do nothing: the fault heals by itself."""

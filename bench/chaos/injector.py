"""Inject faults by a plan that depends on seed, length and faults alone, and heal them."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.chaos import faults
from bench.chaos.fault import Fault, InjectedFault, names_in
from bench.chaos.supervised_processes import SupervisedProcesses

#: Seconds from the first turn to the first fault, and from the end of the last fault to the end.
QUIET = 3.0

#: Seconds between the end of a fault and the next one: sometimes the clients have recovered, and sometimes not.
REST = (0.3, 5.0)

#: The share of faults that begin before the previous one has ended. At most two are active at once.
OVERLAP = 0.25

#: A fault that lasts for more seconds than this always overlaps with others.
LONG = 10.0

#: Seconds between two checks of what is due.
TICK = 0.05

#: Seconds that a process may take to work again after its fault was healed, on a busy machine.
PATIENCE = 90.0


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A fault of a plan: seconds from the beginning, and its duration."""

    at: float
    fault: str
    target: str
    duration: float

    @property
    def until(self) -> float:
        """When it is healed."""
        return self.at + self.duration


def plan(seed: int, seconds: float, table: Mapping[str, Fault]) -> list[PlannedFault]:
    """Plan a run: each fault once, in a random order, and then any, as long as there is time.

    Two faults that overlap never have a common target. A short run has fewer faults, not shorter ones.
    """
    rng = random.Random(seed)
    planned: list[PlannedFault] = []
    for fault, target in _draw(rng, table):
        following = _place(rng, fault, target, planned, table)
        if following.until + QUIET > seconds:
            return planned
        planned.append(following)
    return planned


def _draw(rng: random.Random, table: Mapping[str, Fault]) -> Iterator[tuple[Fault, str]]:
    """Draw faults without end, each as often as any other, with each of its targets in turn."""
    targets = {name: _shuffled(rng, fault.targets) for name, fault in table.items()}
    for name in _shuffled(rng, list(table)):
        yield table[name], next(targets[name])


def _shuffled(rng: random.Random, names: Sequence[str]) -> Iterator[str]:
    """Yield all names in a random order, again and again."""
    while names:
        yield from rng.sample(names, len(names))


def _place(
    rng: random.Random, fault: Fault, target: str, before: Sequence[PlannedFault], table: Mapping[str, Fault]
) -> PlannedFault:
    duration, rest = round(rng.uniform(*fault.duration), 2), round(rng.uniform(*REST), 2)
    overlaps = rng.random() < OVERLAP
    if not before:
        return PlannedFault(QUIET, fault.name, target, duration)
    *_, second, last = 0.0, *sorted(each.until for each in before)
    overlaps = overlaps or last - before[-1].at > LONG
    free = [
        each.until + REST[0] for each in before
        if fault.alone or table[each.fault].alone or set(names_in(each.target)) & set(names_in(target))
    ]  # fmt: skip
    begin = (max(before[-1].at, second) if overlaps else last) + rest
    return PlannedFault(round(max([begin, *free]), 2), fault.name, target, duration)


@dataclass(slots=True)
class ActiveFault:
    """A fault that was injected, perhaps healed, and whose target does not work again yet."""

    planned: PlannedFault
    fault: Fault
    struck_at: float
    healed_at: float | None = None


class FaultInjector:
    """Carries out a plan, from the thread that made the stack; calls `before_last` just before the last fault.

    injected  the faults whose targets work again
    lost      targets that did not work again, with the reason
    """

    def __init__(
        self,
        stack: SupervisedProcesses,
        planned: Sequence[PlannedFault],
        table: Mapping[str, Fault],
        before_last: Callable[[], None] = lambda: None,
    ) -> None:
        self.injected: list[InjectedFault] = []
        self.lost: list[tuple[str, str]] = []
        self._stack = stack
        self._remaining = list(planned)
        self._table = table
        self._active: list[ActiveFault] = []
        self._delay = 0.0
        self._before_last: Callable[[], None] | None = before_last

    def run(self, seconds: float, report: Callable[[str], None]) -> None:
        """Inject and heal until the plan and the time are over, and all targets work again."""
        began = time.monotonic()
        while self._remaining or self._active or time.monotonic() - began < seconds:
            self._heal()
            self._inject_due(time.monotonic() - began)
            self._shorten(time.monotonic() - began > seconds)
            self._stack.supervise()
            active = [f"{each.fault.name} {each.planned.target}" for each in self._active]
            report(", ".join(active) or "no fault is active")
            time.sleep(TICK)
        self._announce_last()

    @property
    def idle(self) -> bool:
        """Whether no fault is active."""
        return not self._active

    def exclude(self, name: str) -> None:
        """Remove a fault from the rest of the plan."""
        self._remaining = [each for each in self._remaining if each.fault != name]

    def _inject_due(self, elapsed: float) -> None:
        due = elapsed - self._delay
        if not self._remaining or due < self._remaining[0].at:
            return
        planned = self._remaining[0]
        fault = self._table[planned.fault]
        if self._must_wait(fault, planned.target):  # the rest of the plan waits, too
            self._delay += due - planned.at
            return
        self._remaining.pop(0)
        self._announce_last()
        self._active.append(ActiveFault(planned, fault, time.monotonic()))
        fault.inject(self._stack, planned.target)

    def _announce_last(self) -> None:
        if not self._remaining and self._before_last is not None:
            self._before_last()
            self._before_last = None

    def _shorten(self, over: bool) -> None:
        """Drop repeated faults once the time is over; the last one of the plan is always injected."""
        if over:
            done = {each.name for each in self.injected} | {each.fault.name for each in self._active}
            last = self._remaining[-1:]
            self._remaining = [each for each in self._remaining if each.fault not in done or each in last]

    def _must_wait(self, fault: Fault, target: str) -> bool:
        """Return whether its target does not work yet, or the fault or an active one must be alone."""
        if self._active and (fault.alone or any(each.fault.alone for each in self._active)):
            return True
        targets = {name for each in self._active for name in names_in(each.planned.target)}
        return bool(targets & set(names_in(target)))

    def _heal(self) -> None:
        for each in list(self._active):
            if each.healed_at is None and time.monotonic() - each.struck_at >= each.planned.duration:
                each.fault.heal(self._stack, each.planned.target)
                each.healed_at = time.monotonic()
            if each.healed_at is not None:
                self._check_recovered(each, each.healed_at)

    def _check_recovered(self, each: ActiveFault, healed_at: float) -> None:
        """Record that a target works again, or that it did not within PATIENCE."""
        now, target = time.monotonic(), each.planned.target
        if faults.has_recovered(self._stack, each.fault, target):
            self.injected.append(InjectedFault(each.fault.name, target, each.struck_at, now))
            self._active.remove(each)
        elif now - healed_at > PATIENCE:
            self.lost.append((target, f"did not answer for {PATIENCE:g} s after {each.fault.name}"))
            self._active.remove(each)

"""The adversary: strikes faults by a plan that depends on seed, length and faults alone, and heals them all."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.chaos import faults
from bench.chaos.arena import Arena
from bench.chaos.faults import Fault, Struck, parts_of

#: Seconds from the first turn to the first fault, and from the last cure to the end.
QUIET = 3.0

#: Seconds between a cure and the next fault: sometimes the clients have recovered, and sometimes not.
REST = (0.3, 5.0)

#: How often a fault does not wait for the one before it to be healed. At most two stand at a time.
OVERLAP = 0.25

#: A fault that stands for more seconds than this is always joined by others.
LONG = 10.0

#: Seconds between two looks at what is due.
TICK = 0.05

#: Seconds that a part may take to answer after its cure, on a machine that does much else.
PATIENCE = 90.0


@dataclass(frozen=True, slots=True)
class Stroke:
    """One fault of a plan: seconds from the beginning, and until it is healed."""

    at: float
    fault: str
    target: str
    hold: float

    @property
    def until(self) -> float:
        """When it is healed."""
        return self.at + self.hold


def plan(seed: int, seconds: float, table: Mapping[str, Fault]) -> list[Stroke]:
    """What happens when: each fault once, in a random order, and then any, as long as there is time.

    Two faults that overlap never strike the same part. A short run breaks off early; it never hurries.
    """
    chance = random.Random(seed)
    strokes: list[Stroke] = []
    for fault, target in _drawn(chance, table):
        stroke = _stroke(chance, fault, target, strokes)
        if stroke.until + QUIET > seconds:
            return strokes
        strokes.append(stroke)
    return strokes


def _drawn(chance: random.Random, table: Mapping[str, Fault]) -> Iterator[tuple[Fault, str]]:
    """Faults without end, each as often as any other; and of each its targets in turn."""
    decks = {name: _deck(chance, fault.targets) for name, fault in table.items()}
    for name in _deck(chance, list(table)):
        yield table[name], next(decks[name])


def _deck(chance: random.Random, cards: Sequence[str]) -> Iterator[str]:
    """All cards in a random order, and again in another one."""
    while cards:
        yield from chance.sample(cards, len(cards))


def _stroke(chance: random.Random, fault: Fault, target: str, before: Sequence[Stroke]) -> Stroke:
    hold, rest = round(chance.uniform(*fault.hold), 2), round(chance.uniform(*REST), 2)
    overlaps = chance.random() < OVERLAP
    if not before:
        return Stroke(QUIET, fault.name, target, hold)
    *_, second, last = 0.0, *sorted(each.until for each in before)
    overlaps = overlaps or last - before[-1].at > LONG
    free = [each.until + REST[0] for each in before if set(parts_of(each.target)) & set(parts_of(target))]
    begin = (max(before[-1].at, second) if overlaps else last) + rest
    return Stroke(round(max([begin, *free]), 2), fault.name, target, hold)


@dataclass(slots=True)
class Standing:
    """A fault that is not over: struck, perhaps healed, and not yet whole."""

    stroke: Stroke
    fault: Fault
    struck_at: float
    healed_at: float | None = None


class Adversary:
    """Carries out a plan, from the thread that made the arena; calls `before_last` just before the last fault."""

    def __init__(
        self,
        arena: Arena,
        strokes: Sequence[Stroke],
        table: Mapping[str, Fault],
        before_last: Callable[[], None] = lambda: None,
    ) -> None:
        self.struck: list[Struck] = []
        self.lost: list[tuple[str, str]] = []
        self._arena = arena
        self._left = list(strokes)
        self._table = table
        self._standing: list[Standing] = []
        self._late = 0.0
        self._before_last = before_last
        self._told = False

    def run(self, seconds: float, say: Callable[[str], None]) -> None:
        """Strike and heal until the plan is at its end and the time is over, and all is whole again."""
        began = time.monotonic()
        while self._left or self._standing or time.monotonic() - began < seconds:
            self._mend()
            self._strike(time.monotonic() - began)
            self._shorten(time.monotonic() - began > seconds)
            self._arena.supervise()
            say(", ".join(f"{each.fault.name} {each.stroke.target}" for each in self._standing) or "all is well")
            time.sleep(TICK)
        self._tell_of_last()

    def heal_all(self) -> None:
        """End all that stands, as far as it can be ended."""
        for each in self._standing:
            if each.healed_at is None:
                each.fault.heal(self._arena, each.stroke.target)
        self._standing.clear()

    def _strike(self, elapsed: float) -> None:
        due = elapsed - self._late
        if not self._left or due < self._left[0].at:
            return
        stroke = self._left[0]
        if self._busy(stroke):  # its target is not back from the last one: the rest of the plan waits too
            self._late += due - stroke.at
            return
        self._left.pop(0)
        self._tell_of_last()
        fault = self._table[stroke.fault]
        standing = Standing(stroke, fault, time.monotonic())
        self._standing.append(standing)
        fault.strike(self._arena, stroke.target)

    def _tell_of_last(self) -> None:
        if not self._left and not self._told:
            self._told = True
            self._before_last()

    def _shorten(self, over: bool) -> None:
        """When the time is over only what was not struck yet is still struck, and the last one in any case."""
        if over:
            known = {each.name for each in self.struck} | {each.fault.name for each in self._standing}
            self._left = [each for each in self._left if each.fault not in known or each is self._left[-1]]

    def _busy(self, stroke: Stroke) -> bool:
        struck = {part for each in self._standing for part in parts_of(each.stroke.target)}
        return bool(struck & set(parts_of(stroke.target)))

    def _mend(self) -> None:
        for each in list(self._standing):
            if each.healed_at is None and time.monotonic() - each.struck_at >= each.stroke.hold:
                each.fault.heal(self._arena, each.stroke.target)
                each.healed_at = time.monotonic()
            if each.healed_at is not None:
                self._see(each, each.healed_at)

    def _see(self, each: Standing, healed_at: float) -> None:
        """Note that it is over, or that it never will be."""
        now, target = time.monotonic(), each.stroke.target
        if faults.whole(self._arena, each.fault, target):
            self.struck.append(Struck(each.fault.name, target, each.struck_at, now))
            self._standing.remove(each)
        elif now - healed_at > PATIENCE:
            self.lost.append((target, f"did not answer for {PATIENCE:g} s after {each.fault.name}"))
            self._standing.remove(each)

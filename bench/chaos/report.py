"""The result of a run, for people and programs: faults, what the clients did, and every violation."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench.chaos.fault import InjectedFault
from bench.chaos.injector import PlannedFault
from bench.chaos.violations import Violation
from bench.machine import Machine
from ops.table import align_columns

HEADINGS = ("fault", "times", "recovery: median", "longest")
ATTACK_HEADINGS = ("attack", "answers, by status")

#: Violations that are printed; the JSON has all of them.
MOST_PRINTED = 40


@dataclass(slots=True)
class ChaosReport:
    """One run.

    command   repeats the run
    counts    what the fleet did
    recovery  seconds by fault, of those during which an answer was running
    excused   pieces of work that were under way while a promoted standby lost commits
    attacks   answers to the adversary, by attack and status; 0: it disconnected, or the platform did
    restarts  unexpected deaths of processes
    logs      the folder of the processes' logs, if they were kept
    """

    machine: Machine
    broker: str
    seed: int
    minutes: float
    command: str
    plan: Sequence[PlannedFault] = ()
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    injected: Sequence[InjectedFault] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    attacks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    recovery: Mapping[str, Sequence[float]] = field(default_factory=dict)
    restarts: Sequence[str] = ()
    excused: int = 0
    violations: list[Violation] = field(default_factory=list)
    logs: str | None = None

    def text(self) -> str:
        """Return the lines for people, the verdict last."""
        began = f"{self.began:%Y-%m-%d %H:%M} UTC"
        top = [self.machine.line(), f"{began}, queue: {self.broker}, seed {self.seed}, {self.minutes:g} minutes"]
        counts = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        restarts = [f"restarted: {reason}" for reason in self.restarts]
        if self.excused:
            restarts.append(f"{self.excused} pieces of work were under way while a promoted standby lost commits")
        table = align_columns(self._rows(), right=(1, 2, 3))
        return "\n".join([*top, "", *table, "", *self._attack_lines(), counts, *restarts, *self._verdict()])

    def json(self) -> dict[str, Any]:
        """Return the report for programs."""
        return asdict(self) | {"began": self.began.isoformat(timespec="seconds"), "plan": [*map(asdict, self.plan)]}

    def _rows(self) -> list[tuple[str, ...]]:
        times = Counter(fault.name for fault in self.injected)
        return [HEADINGS, *((name, str(times[name]), *spread(self.recovery.get(name, ()))) for name in sorted(times))]

    def _attack_lines(self) -> list[str]:
        rows = [
            (name, ", ".join(f"{count}x {status}" for status, count in sorted(statuses.items())))
            for name, statuses in sorted(self.attacks.items())
        ]
        return [*align_columns([ATTACK_HEADINGS, *rows]), ""] if rows else []

    def _verdict(self) -> list[str]:
        printed = [f"  {violation}" for violation in self.violations[:MOST_PRINTED]]
        if more := len(self.violations) - len(printed):
            printed.append(f"  and {more} more")
        logs = [f"The logs of all processes are in {self.logs}"] if self.logs else []
        repeat = [f"Repeat it with: {self.command}"] if self.violations else []
        return [f"{len(self.injected)} faults, {len(self.violations)} violations", *printed, *logs, *repeat]


def spread(seconds: Sequence[float]) -> tuple[str, str]:
    """Return the median and the longest."""
    if not seconds:
        return "", ""
    return f"{statistics.median(seconds):.2f} s", f"{max(seconds):.2f} s"

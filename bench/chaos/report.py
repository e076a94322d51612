"""What people and programs are told of a run: faults, what the clients did, and every broken promise by name."""

import statistics
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench.chaos.adversary import Stroke
from bench.chaos.faults import Struck
from bench.chaos.violations import Violation
from bench.machine import Machine

HEADINGS = ("fault", "times", "recovery: median", "longest")

#: Violations that are printed; all of them stand in the JSON.
MOST_PRINTED = 40


@dataclass(slots=True)
class Report:
    """One run.

    counts    what the fleet did
    recovery  seconds by fault, of those that some client waited for
    restarts  parts that ended unasked and were started again
    logs      where the processes' logs are, if they were kept
    """

    machine: Machine
    broker: str
    seed: int
    minutes: float
    command: str
    plan: Sequence[Stroke] = ()
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    struck: Sequence[Struck] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    recovery: Mapping[str, Sequence[float]] = field(default_factory=dict)
    restarts: Sequence[str] = ()
    violations: list[Violation] = field(default_factory=list)
    logs: str | None = None

    def text(self) -> str:
        """All of it, the verdict last."""
        counts = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        restarts = [f"started again: {why}" for why in self.restarts]
        return "\n".join(
            [*self._top(), "", *aligned(self._rows(), right=(1, 2, 3)), "", counts, *restarts, *self._verdict()]
        )

    def json(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self) | {"began": self.began.isoformat(timespec="seconds"), "plan": [*map(asdict, self.plan)]}

    def _top(self) -> list[str]:
        began = f"{self.began:%Y-%m-%d %H:%M} UTC"
        return [self.machine.line(), f"{began}, queue: {self.broker}, seed {self.seed}, {self.minutes:g} minutes"]

    def _rows(self) -> list[tuple[str, ...]]:
        times = Counter(struck.name for struck in self.struck)
        return [HEADINGS, *((name, str(times[name]), *spread(self.recovery.get(name, ()))) for name in sorted(times))]

    def _verdict(self) -> list[str]:
        told = [f"  {violation}" for violation in self.violations[:MOST_PRINTED]]
        more = len(self.violations) - len(told)
        told += [f"  and {more} more" if more else ""][: 1 if more else 0]
        logs = [f"The logs of all parts are in {self.logs}"] if self.logs else []
        again = [f"The same again: {self.command}"] if self.violations else []
        return [f"{sum(1 for _ in self.struck)} faults, {len(self.violations)} violations", *told, *logs, *again]


def aligned(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> list[str]:
    """Lines with aligned columns, some of them to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    cells = [[(cell, width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return ["  ".join(cell.rjust(width) if place in right else cell.ljust(width)
                      for place, (cell, width) in enumerate(row)).rstrip() for row in cells]  # fmt: skip


def spread(seconds: Sequence[float]) -> tuple[str, str]:
    """The median and the longest."""
    if not seconds:
        return "", ""
    return f"{statistics.median(seconds):.2f} s", f"{max(seconds):.2f} s"

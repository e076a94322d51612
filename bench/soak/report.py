"""The result of a soak: lines for people, one a series, and JSON for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench.machine import Machine
from bench.soak.open_loop import OperationLog, done_by_kind
from bench.soak.retention import Retention
from bench.soak.series import PANELS, SeriesSet
from bench.soak.verdict import ShownOnly, Verdict
from ops.table import align_columns

HEADINGS = ("monitored", "series", "start", "end", "trend an hour", "an operation", "tolerated in all", "verdict")

#: Lines of a panel that are printed even where they do not grow.
LARGEST = 7

EXPLANATION = (
    "Start and end: medians of the first and the last quarter after the warm-up, which is a third of the run.\n"
    "Trend: the least slope of the whole and of both halves. GROWING: it amounts to more than is tolerated in all;\n"
    "a proportional series may grow as the operations do, and not faster."
)


@dataclass(slots=True)
class SoakReport:
    """One run."""

    machine: Machine
    broker: str
    minutes: float
    seed: int
    rate: float = 0.0
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    series: SeriesSet = field(default_factory=SeriesSet)
    operations: OperationLog = field(default_factory=OperationLog)
    retention: Retention | None = None
    failures: list[str] = field(default_factory=list)

    @property
    def growing(self) -> Sequence[str]:
        """The series that grow and should not."""
        return [f"{PANELS[panel].title}, {line}" for panel, line, verdict in self.series.verdicts() if verdict.grows]

    @property
    def faults(self) -> Sequence[str]:
        """Faults beside growth: operations that failed, jobs that did not end, rows that are never deleted."""
        left = self.retention.left if self.retention else {}
        unfinished = self.retention.unfinished if self.retention else 0
        return [
            *(f"{count:,} of {kind} failed" for kind, count in self.operations.failed.items()),
            *([f"{unfinished:,} jobs did not end"] if unfinished else []),
            *(f"{count:,} {rows} remain after the pruning" for rows, count in left.items()),
            *self.failures,
        ]

    @property
    def steady(self) -> bool:
        """Whether nothing grows or failed."""
        return not self.growing and not self.faults

    def headline(self) -> str:
        """Return the verdict in one line."""
        if self.steady:
            judged = any(verdict.conclusion != "too short" for *_, verdict in self.series.verdicts())
            return "STEADY" if judged else "NOTHING FAILED; the run is too short to detect growth"
        growing = [f"GROWING: {'; '.join(self.growing)}"] if self.growing else []
        return ". ".join([*growing, *(["FAILED: " + "; ".join(self.faults)] if self.faults else [])])

    def text(self) -> str:
        """Return the table, the operations and the verdict."""
        top = [self.machine.line(), f"{self.began:%Y-%m-%d %H:%M} UTC, {self.parameters()}", ""]
        table = align_columns([HEADINGS, *rows(self.series)], right=range(2, 7), rule=True)
        done = [*self._operations(), *self.operations.errors]
        return "\n".join([*top, *table, "", EXPLANATION, "", *done, self.headline()])

    def parameters(self) -> str:
        """Return the parameters of the run."""
        return f"{self.minutes:g} min at {self.rate:.1f} operations a second, queue: {self.broker}, seed {self.seed}"

    def json(self) -> dict[str, Any]:
        """Return the report for programs, with all readings."""
        return {
            "machine": asdict(self.machine),
            "began": self.began.isoformat(timespec="seconds"),
            "broker": self.broker,
            "minutes": self.minutes,
            "rate": self.rate,
            "seed": self.seed,
            "done": dict(self.operations.done),
            "failed": dict(self.operations.failed),
            "retention": asdict(self.retention) if self.retention else None,
            "faults": list(self.faults),
            "growing": list(self.growing),
            "steady": self.steady,
            "series": [as_json(self.series, *each) for each in self.series.verdicts()],
        }

    def _operations(self) -> Iterator[str]:
        yield f"Operations done: {', '.join(done_by_kind(self.operations.done))}."
        if self.retention is not None:
            pruned = ", ".join(f"{name} {count:,}" for name, count in self.retention.pruned.items())
            yield f"Rows deleted by the nightly pruning after aging by 400 days: {pruned or 'none'}."


def rows(series: SeriesSet) -> list[tuple[str, ...]]:
    """Return the cells: of each panel the growing and the largest series, and how many more there are.

    The title of a panel is in its first row only.
    """
    verdicts = list(series.verdicts())
    cells: list[tuple[str, ...]] = []
    for key, panel in PANELS.items():
        lines = [each for each in verdicts if each[0] == key]
        printed = [each for number, each in enumerate(lines) if number < LARGEST or each[2].grows]
        own = [row(*each) for each in printed]
        if more := len(lines) - len(printed):
            own.append((f"{more} more, none of which grows", *[""] * (len(HEADINGS) - 2)))
        cells += [(panel.title if number == 0 else "", *each) for number, each in enumerate(own)]
    return cells


def row(panel: str, line: str, verdict: Verdict) -> tuple[str, ...]:
    """Return the cells of a series, without the panel."""
    unit = PANELS[panel].unit
    conclusion = "" if isinstance(PANELS[panel].rule_of(line), ShownOnly) else verdict.conclusion
    tolerance = quantity(verdict.tolerance, unit) if verdict.tolerance is not None else ""
    changes = [quantity(verdict.slope * 3600, unit, signed=True), quantity(verdict.each, unit, signed=True)]
    return line, quantity(verdict.start, unit), quantity(verdict.end, unit), *changes, tolerance, conclusion


def quantity(value: float, unit: str, *, signed: bool = False) -> str:
    """`12.3 MiB`, `0.24 s`, `1,234`."""
    sign = "+" if signed and value > 0 else ""
    if unit == "bytes":
        size, name = byte_unit(abs(value))
        return f"{sign or ('-' if value < 0 else '')}{number(abs(value) / size)} {name}"
    return f"{sign}{number(value)}{' ' + unit if unit in ('s', '/s') else ''}"


def byte_unit(value: float) -> tuple[float, str]:
    """Return the largest unit of bytes that does not exceed a value, and its name."""
    for size, name in ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")):
        if value >= size:
            return size, name
    return 1.0, "B"


def number(value: float) -> str:
    """Format a value with three significant digits, or with all digits of a larger whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def as_json(series: SeriesSet, panel: str, line: str, verdict: Verdict) -> Mapping[str, Any]:
    """Return a series with its readings: seconds, operations, value."""
    points = [[round(point.at, 2), point.operations, point.value] for point in series.points[panel, line]]
    return {"watched": panel, "series": line, "unit": PANELS[panel].unit, **asdict(verdict), "readings": points}

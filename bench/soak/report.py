"""What the soak came to: lines for people, one a series, and JSON for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench.machine import Machine
from bench.soak.pace import Ledger, told
from bench.soak.retention import Retention
from bench.soak.series import PANELS, Records
from bench.soak.verdict import Judged, Seen

HEADINGS = ("watched", "series", "start", "end", "trend an hour", "a piece of work", "tolerated in all", "verdict")

#: Lines of a panel that are told even where they don't grow.
LARGEST = 7

EXPLANATION = (
    "Start and end: medians of the first and the last quarter of what came after the warm-up, a third of the run.\n"
    "Trend: what the whole and both halves have in common. GROWING: it came to more than is tolerated in all; what\n"
    "grows by use may grow as the work does, and not faster."
)


@dataclass(slots=True)
class Report:
    """One run."""

    machine: Machine
    broker: str
    minutes: float
    seed: int
    rate: float = 0.0
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    records: Records = field(default_factory=Records)
    ledger: Ledger = field(default_factory=Ledger)
    retention: Retention | None = None
    failures: list[str] = field(default_factory=list)

    @property
    def growing(self) -> Sequence[str]:
        """What grows and should not."""
        return [f"{PANELS[panel].title}, {line}" for panel, line, judged in self.records.judged() if judged.grows]

    @property
    def faults(self) -> Sequence[str]:
        """What was broken beside growth: work that failed, jobs that did not end, rows that stay for ever."""
        left = self.retention.left if self.retention else {}
        unfinished = self.retention.unfinished if self.retention else 0
        return [
            *(f"{count:,} of {kind} failed" for kind, count in self.ledger.failed.items()),
            *([f"{unfinished:,} jobs did not end"] if unfinished else []),
            *(f"{count:,} {what} outlive the pruning" for what, count in left.items()),
            *self.failures,
        ]

    @property
    def steady(self) -> bool:
        """Whether all is well."""
        return not self.growing and not self.faults

    def headline(self) -> str:
        """The verdict in a line."""
        if self.steady:
            judged = any(each.say != "too short" for *_, each in self.records.judged())
            return "STEADY" if judged else "NOTHING FAILED, and too short to tell whether anything grows"
        said = [f"GROWING: {'; '.join(self.growing)}"] if self.growing else []
        return ". ".join([*said, *(["FAILED: " + "; ".join(self.faults)] if self.faults else [])])

    def text(self) -> str:
        """All lines."""
        top = [self.machine.line(), f"{self.began:%Y-%m-%d %H:%M} UTC, {self.asked()}", ""]
        return "\n".join(
            [*top, *render(rows(self.records)), "", EXPLANATION, "", *self._done(), *self.ledger.why, self.headline()]
        )

    def asked(self) -> str:
        """What the run was."""
        return (
            f"{self.minutes:g} min at {self.rate:.1f} pieces of work a second, queue: {self.broker}, seed {self.seed}"
        )

    def json(self) -> dict[str, Any]:
        """The same, for programs, with all that was read."""
        series = [as_json(self.records, *each) for each in self.records.judged()]
        return {
            "machine": asdict(self.machine),
            "began": self.began.isoformat(timespec="seconds"),
            "broker": self.broker,
            "minutes": self.minutes,
            "rate": self.rate,
            "seed": self.seed,
            "done": dict(self.ledger.done),
            "failed": dict(self.ledger.failed),
            "retention": asdict(self.retention) if self.retention else None,
            "faults": list(self.faults),
            "growing": list(self.growing),
            "steady": self.steady,
            "series": series,
        }

    def _done(self) -> Iterator[str]:
        yield f"Work done: {', '.join(told(self.ledger.done))}."
        if self.retention is not None:
            pruned = ", ".join(f"{name} {count:,}" for name, count in self.retention.pruned.items())
            yield f"Rows that went when all was 400 days old and the nightly pruning ran: {pruned or 'none'}."


def rows(records: Records) -> list[tuple[str, ...]]:
    """The cells: of each panel what grows and the largest, and how many more there are, none of which grows."""
    judged = list(records.judged())
    shown = []
    for key, panel in PANELS.items():
        lines = [each for each in judged if each[0] == key]
        told = [each for place, each in enumerate(lines) if place < LARGEST or each[2].grows]
        shown += [row(*each) for each in told]
        if more := len(lines) - len(told):
            shown.append((panel.title, f"{more} more, none of which grows", *[""] * (len(HEADINGS) - 2)))
    return shown


def row(panel: str, line: str, judged: Judged) -> tuple[str, ...]:
    """The cells of a series."""
    unit = PANELS[panel].unit
    say = "" if isinstance(PANELS[panel].rule_of(line), Seen) else judged.say
    tolerance = quantity(judged.tolerance, unit) if judged.tolerance is not None else ""
    changes = [quantity(judged.slope * 3600, unit, signed=True), quantity(judged.each, unit, signed=True)]
    return PANELS[panel].title, line, quantity(judged.start, unit), quantity(judged.end, unit), *changes, tolerance, say


def quantity(value: float, unit: str, *, signed: bool = False) -> str:
    """`12.3 MiB`, `0.24 s`, `1,234`."""
    sign = "+" if signed and value > 0 else ""
    if unit == "bytes":
        size, name = scaled(abs(value))
        return f"{sign or ('-' if value < 0 else '')}{number(abs(value) / size)} {name}"
    return f"{sign}{number(value)}{' ' + unit if unit in ('s', '/s') else ''}"


def scaled(value: float) -> tuple[float, str]:
    """The unit that a number of bytes is best told in, and its name."""
    for size, name in ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")):
        if value >= size:
            return size, name
    return 1.0, "B"


def number(value: float) -> str:
    """Three significant digits, and all of a larger whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def render(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns below the headings, numbers to the right; a panel is named once."""
    shown = [("", *cells[1:]) if place and rows[place - 1][0] == cells[0] else tuple(cells)
             for place, cells in enumerate(rows)]  # fmt: skip
    widths = [max(len(cells[column]) for cells in [HEADINGS, *rows]) for column in range(len(HEADINGS))]
    rule = ["─" * width for width in widths]
    return ["  ".join(_cell(place, cell, width) for place, (cell, width) in enumerate(zip(cells, widths, strict=True)))
            .rstrip() for cells in [HEADINGS, rule, *shown]]  # fmt: skip


def _cell(place: int, cell: str, width: int) -> str:
    return cell.rjust(width) if 2 <= place <= 6 else cell.ljust(width)


def as_json(records: Records, panel: str, line: str, judged: Judged) -> Mapping[str, Any]:
    """A series with its readings: seconds, pieces of work, value."""
    points = [[round(point.at, 2), point.work, point.value] for point in records.points[panel, line]]
    return {"watched": panel, "series": line, "unit": PANELS[panel].unit, **asdict(judged), "readings": points}

"""The report of the measurements: a table for people, JSON for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench.figures import Figure, Goal
from bench.machine import Machine
from ops.table import align_columns

HEADINGS = ("scenario", "figure", "goal", "measured (spread)", "verdict")

VERDICTS = {True: "met", False: "MISSED", None: ""}

EXPLANATION = (
    "Measured: the median, with the 10th and 90th percentile of its samples; a p99 with its lowest and highest\n"
    "value among fifths of the run."
)


@dataclass(slots=True)
class BenchReport:
    """One run: figures by scenario, the seconds that each took, and the error of a scenario that failed."""

    machine: Machine
    broker: str
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    figures: dict[str, Sequence[Figure]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return the table, with the machine above it and failures below."""
        duration = f"{sum(self.seconds.values()) / 60:.1f} minutes"
        top = [self.machine.line(), f"{self.began:%Y-%m-%d %H:%M} UTC, {duration}, queue: {self.broker}", ""]
        failed = [f"{name} FAILED: {error}" for name, error in self.failures.items()]
        return "\n".join([*top, *align_columns([HEADINGS, *self.rows()], rule=True), "", EXPLANATION, *failed])

    def rows(self) -> list[tuple[str, ...]]:
        """Return the cells; a scenario's name is in its first row only."""
        return [
            (name if number == 0 else "", *row(figure))
            for name, figures in self.figures.items()
            for number, figure in enumerate(figures)
        ]

    def json(self) -> dict[str, Any]:
        """Return the report for programs, with all samples."""
        figures = [as_json(name, figure) for name, measured in self.figures.items() for figure in measured]
        return {
            "machine": asdict(self.machine),
            "broker": self.broker,
            "began": self.began.isoformat(timespec="seconds"),
            "seconds": {name: round(seconds, 1) for name, seconds in self.seconds.items()},
            "figures": figures,
            "failures": self.failures,
        }


def row(figure: Figure) -> tuple[str, str, str, str]:
    """Name, goal, measured value and verdict."""
    low, high = figure.spread
    spread = f" ({number(low)} … {number(high)})" if low != high else ""
    measured = f"{quantity(figure.value, figure.unit)}{spread}"
    return figure.name, goal_text(figure.goal, figure.unit), measured, VERDICTS[figure.met]


def goal_text(goal: Goal | None, unit: str) -> str:
    """`≤ 10 ms`."""
    return f"{'≥' if goal.at_least else '≤'} {quantity(goal.limit, unit)}" if goal else ""


def quantity(value: float, unit: str) -> str:
    """`12.3 ms`, `240/s`, `0.97x`."""
    return f"{number(value)}{' ' if unit in ('ms', 's') else ''}{unit}"


def number(value: float) -> str:
    """Format a value with three significant digits, or with all digits of a larger whole number."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def as_json(scenario: str, figure: Figure) -> Mapping[str, Any]:
    """Return a figure with its samples."""
    low, high = figure.spread
    return {
        "scenario": scenario,
        "what": figure.name,
        "unit": figure.unit,
        "quantile": figure.quantile,
        "value": figure.value,
        "low": low,
        "high": high,
        "goal": asdict(figure.goal) if figure.goal else None,
        "met": figure.met,
        "samples": list(figure.samples),
    }

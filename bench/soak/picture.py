"""draft"""

from pathlib import Path

from bench.soak.report import Report


def draw(report: Report, file: Path) -> None:
    """Nothing yet."""

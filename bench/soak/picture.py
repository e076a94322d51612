"""Draw a page of small panels over the same minutes, each line labelled at its end."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.soak.report import SoakReport, byte_unit, number, quantity
from bench.soak.series import PANELS
from bench.soak.verdict import WARM_UP, Point, ShownOnly, Verdict, interval_medians

#: The panels of the page, row by row.
LAYOUT = ("memory", "servers", "files", "server files", "threads", "connections", "jobs", "queues",
          "keys", "tables", "dead", "latency")  # fmt: skip
COLUMNS, SIZE, DOTS = 4, (18.0, 11.5), 120

#: Units that are appended to a title.
UNITS = ("s", "B", "KiB", "MiB", "GiB")

#: Lines of a panel that have a colour and a label; the others are grey.
LABELLED = 6

COLOURS = ("#31688e", "#5b9a8b", "#b5853c", "#8f6a9e", "#6b7a86", "#9aa85c")
TEXT, FAINT, SHADE, ALARM, GOOD = "#333333", "#c9c9c9", "#f4f4f2", "#c0392b", "#4d8b57"

#: The least distance of two labels as a share of the panel's height, and the y-axis's limit ÷ the highest value.
LABEL_DISTANCE, HEADROOM = 0.085, 1.12

#: The right edge of a panel's verdict, in widths of the panel: above the labels.
VERDICT_EDGE = 1.44

STYLE: Mapping[str, object] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "text.color": TEXT,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

PlottedLine = tuple[str, Sequence[Point], Verdict]


def draw(report: SoakReport, file: Path) -> None:
    """Write the picture of a run."""
    panels: dict[str, list[PlottedLine]] = {}
    for panel, line, verdict in report.series.verdicts():
        panels.setdefault(panel, []).append((line, report.series.points[panel, line], verdict))
    with pyplot.rc_context(STYLE):  # type: ignore[arg-type]
        figure, grid = pyplot.subplots(len(LAYOUT) // COLUMNS, COLUMNS, figsize=SIZE, sharex=True)
        for position, (key, axes) in enumerate(zip(LAYOUT, grid.flat, strict=True)):
            _draw_panel(axes, key, panels.get(key, []))
            if position >= len(LAYOUT) - COLUMNS:
                axes.set_xlabel("minutes")
        _draw_headings(figure, report)
        figure.subplots_adjust(left=0.035, right=0.925, top=0.865, bottom=0.05, wspace=0.62, hspace=0.3)
        figure.savefig(file, dpi=DOTS, format=file.suffix.removeprefix(".") or "png")
        pyplot.close(figure)


def _draw_panel(axes: Axes, key: str, lines: Sequence[PlottedLine]) -> None:
    highest = max((point.value for _, points, _ in lines for point in points), default=1.0)
    size, unit = byte_unit(highest) if PANELS[key].unit == "bytes" else (1.0, PANELS[key].unit)
    ranked = sorted(lines, key=lambda line: (line[2].grows, _peak(line)), reverse=True)
    labels = []
    for rank, line in reversed(list(enumerate(ranked))):
        if (colour := _colour(rank, line)) is not None:
            labels.append((_draw_line(axes, line, size, colour), line[0], colour))
        else:
            _draw_line(axes, line, size, FAINT)
    axes.set_ylim(0, max(highest / size * HEADROOM, 4 if unit not in ("s", "MiB", "GiB") else 0.0))
    _draw_frame(axes, lines)
    _draw_title(axes, f"{PANELS[key].title} ({unit})" if unit in UNITS else PANELS[key].title, key, ranked)
    _draw_labels(axes, labels, len(ranked) - len(labels))


def _colour(rank: int, line: PlottedLine) -> str | None:
    if line[2].grows:
        return ALARM
    return COLOURS[rank] if rank < LABELLED and _peak(line) else None


def _peak(line: PlottedLine) -> float:
    return max((point.value for point in line[1]), default=0.0)


def _draw_line(axes: Axes, line: PlottedLine, size: float, colour: str) -> float:
    """Draw all readings faintly, and their medians; returns the last median."""
    _, points, verdict = line
    medians = interval_medians(points)
    axes.plot([p.at / 60 for p in points], [p.value / size for p in points], color=colour, linewidth=0.5, alpha=0.45)
    width = 2.2 if verdict.grows else 1.4
    axes.plot([p.at / 60 for p in medians], [p.value / size for p in medians], color=colour, linewidth=width)
    return medians[-1].value / size


def _draw_frame(axes: Axes, lines: Sequence[PlottedLine]) -> None:
    """Draw a few ticks, and shade the warm-up."""
    last = max((points[-1].at for _, points, _ in lines), default=60.0) / 60
    axes.axvspan(0, last * WARM_UP, color=SHADE, zorder=0, linewidth=0)
    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=last > 4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    axes.tick_params(length=2, width=0.6, labelsize=8)
    axes.grid(axis="y", color="#ececec", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_title(axes: Axes, title: str, key: str, lines: Sequence[PlottedLine]) -> None:
    """Draw the title, and the verdict on the right."""
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", pad=7)
    if isinstance(PANELS[key].rule, ShownOnly) or not lines:
        return
    growing = sum(verdict.grows for _, _, verdict in lines)
    conclusions = {verdict.conclusion for _, _, verdict in lines}
    good = next((each for each in ("proportional", "too short") if conclusions == {each}), "steady")
    text, colour = ("GROWING", ALARM) if growing else (good, GOOD)
    axes.annotate(text, (VERDICT_EDGE, 1.0), (0, 7), "axes fraction", "offset points", color=colour, fontsize=9,
                  fontweight="bold", ha="right", va="bottom")  # fmt: skip


def _draw_labels(axes: Axes, labels: Sequence[tuple[float, str, str]], others: int) -> None:
    """Label each line at its end, without overlap."""
    top = axes.get_ylim()[1]
    rows = [(value / top, name, colour) for value, name, colour in sorted(labels)]
    rows = [(0.0, f"{others} others", "#999999"), *rows] if others and labels else rows
    for height, (_, name, colour) in zip(spread([row[0] for row in rows]), rows, strict=True):
        axes.annotate(name, (1.0, height), (5, 0), "axes fraction", "offset points", color=colour, fontsize=8,
                      va="center", annotation_clip=False)  # fmt: skip
    if not labels:
        axes.annotate("none", (0.5, 0.5), xycoords="axes fraction", color="#999999", ha="center")


def spread(heights: Sequence[float]) -> list[float]:
    """Move ascending heights apart by LABEL_DISTANCE, and down again where they would exceed the panel."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + LABEL_DISTANCE) if placed else height)
    ceiling = max(1.0, (len(placed) - 1) * LABEL_DISTANCE)
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - LABEL_DISTANCE
    return placed


def _draw_headings(figure: Figure, report: SoakReport) -> None:
    """Draw the verdict, the machine and the parameters."""
    colour = GOOD if report.steady else ALARM
    figure.text(0.035, 0.965, "Soak", fontsize=19, fontweight="bold", va="center")
    headline = fill(report.headline(), 140, max_lines=2, placeholder=" …")
    figure.text(
        0.085, 0.965, headline, fontsize=19 if report.steady else 12, fontweight="bold", color=colour, va="center"
    )
    figure.text(0.035, 0.927, report.machine.line(), fontsize=9)
    figure.text(0.035, 0.907, _summary(report), fontsize=9)


def _summary(report: SoakReport) -> str:
    counts = report.operations.counts()
    latency = [
        f"{line} {quantity(verdict.end, 's')}" for key, line, verdict in report.series.verdicts() if key == "latency"
    ]
    operations = f"{counts.done:,} operations done, {counts.failed:,} failed. Shaded: warm-up, not judged."
    turns = f" A streamed turn in the last quarter: {', '.join(latency)}." if latency else ""
    return f"{report.began:%Y-%m-%d %H:%M} UTC, {report.parameters()}. {operations}{turns}"

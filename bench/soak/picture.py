"""The picture: a page of small panels over the same minutes, each line named where it ends."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.soak.report import Report, number, quantity, scaled
from bench.soak.series import PANELS
from bench.soak.verdict import WARM_UP, Judged, Point, Seen, stretches

#: Which panels stand where, row by row; the last place is the verdict's.
PLACES = ("memory", "servers", "files", "server files", "threads", "connections", "jobs", "queues",
          "keys", "tables", "dead", "latency")  # fmt: skip
COLUMNS, SIZE, DOTS = 4, (18.0, 11.5), 120

#: Units that a title does not name by itself.
UNITS = ("s", "B", "KiB", "MiB", "GiB")

#: Lines of a panel that have a colour and a name; the others are grey.
NAMED = 6

COLOURS = ("#31688e", "#5b9a8b", "#b5853c", "#8f6a9e", "#6b7a86", "#9aa85c")
INK, FAINT, SHADE, ALARM, CALM = "#333333", "#c9c9c9", "#f4f4f2", "#c0392b", "#4d8b57"

#: The least distance of two names, as a share of the panel's height; and how far up a panel's lines go.
APART, CEILING = 0.085, 1.12

#: Where a panel's verdict ends, in widths of the panel: above the names.
VERDICT = 1.44

STYLE: Mapping[str, object] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

Line = tuple[str, Sequence[Point], Judged]


def draw(report: Report, file: Path) -> None:
    """Write the picture of a run."""
    judged: dict[str, list[Line]] = {}
    for panel, line, each in report.records.judged():
        judged.setdefault(panel, []).append((line, report.records.points[panel, line], each))
    with pyplot.rc_context(STYLE):  # type: ignore[arg-type]
        figure, grid = pyplot.subplots(len(PLACES) // COLUMNS, COLUMNS, figsize=SIZE, sharex=True)
        for place, (key, axes) in enumerate(zip(PLACES, grid.flat, strict=True)):
            _panel(axes, key, judged.get(key, []))
            if place >= len(PLACES) - COLUMNS:
                axes.set_xlabel("minutes")
        _headings(figure, report)
        figure.subplots_adjust(left=0.035, right=0.925, top=0.865, bottom=0.05, wspace=0.62, hspace=0.3)
        figure.savefig(file, dpi=DOTS, format=file.suffix.removeprefix(".") or "png")
        pyplot.close(figure)


def _panel(axes: Axes, key: str, lines: Sequence[Line]) -> None:
    highest = max((point.value for _, points, _ in lines for point in points), default=1.0)
    size, unit = scaled(highest) if PANELS[key].unit == "bytes" else (1.0, PANELS[key].unit)
    ranked = sorted(lines, key=lambda line: (line[2].grows, _peak(line)), reverse=True)
    names = []
    for place, line in reversed(list(enumerate(ranked))):
        if (colour := _colour(place, line)) is not None:
            names.append((_line(axes, line, size, colour), line[0], colour))
        else:
            _line(axes, line, size, FAINT)
    axes.set_ylim(0, max(highest / size * CEILING, 4 if unit not in ("s", "MiB", "GiB") else 0.0))
    _frame(axes, lines)
    _title(axes, f"{PANELS[key].title} ({unit})" if unit in UNITS else PANELS[key].title, key, ranked)
    _name(axes, names, len(ranked) - len(names))


def _colour(place: int, line: Line) -> str | None:
    if line[2].grows:
        return ALARM
    return COLOURS[place] if place < NAMED and _peak(line) else None


def _peak(line: Line) -> float:
    return max((point.value for point in line[1]), default=0.0)


def _line(axes: Axes, line: Line, size: float, colour: str) -> float:
    """All readings faintly, and what they are about; where it ends."""
    _, points, judged = line
    told = stretches(points)
    axes.plot([p.at / 60 for p in points], [p.value / size for p in points], color=colour, linewidth=0.5, alpha=0.45)
    width = 2.2 if judged.grows else 1.4
    axes.plot([p.at / 60 for p in told], [p.value / size for p in told], color=colour, linewidth=width)
    return told[-1].value / size


def _frame(axes: Axes, lines: Sequence[Line]) -> None:
    """Few ticks, and the warm-up in shade."""
    last = max((points[-1].at for _, points, _ in lines), default=60.0) / 60
    axes.axvspan(0, last * WARM_UP, color=SHADE, zorder=0, linewidth=0)
    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=last > 4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    axes.tick_params(length=2, width=0.6, labelsize=8)
    axes.grid(axis="y", color="#ececec", linewidth=0.6)
    axes.set_axisbelow(True)


def _title(axes: Axes, title: str, key: str, lines: Sequence[Line]) -> None:
    """What it is, and its verdict at the right."""
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", pad=7)
    if isinstance(PANELS[key].rule, Seen) or not lines:
        return
    growing = sum(judged.grows for _, _, judged in lines)
    says = {judged.say for _, _, judged in lines}
    calm = "by use" if says == {"by use"} else "too short" if says == {"too short"} else "steady"
    text, colour = ("GROWING", ALARM) if growing else (calm, CALM)
    axes.annotate(text, (VERDICT, 1.0), (0, 7), "axes fraction", "offset points", color=colour, fontsize=9,
                  fontweight="bold", ha="right", va="bottom")  # fmt: skip


def _name(axes: Axes, names: Sequence[tuple[float, str, str]], others: int) -> None:
    """Each line's name at its end, moved apart where they would meet."""
    top = axes.get_ylim()[1]
    rows = [(value / top, name, colour) for value, name, colour in sorted(names)]
    rows = [(0.0, f"{others} others", "#999999"), *rows] if others and names else rows
    for height, (_, name, colour) in zip(spread([row[0] for row in rows]), rows, strict=True):
        axes.annotate(name, (1.0, height), (5, 0), "axes fraction", "offset points", color=colour, fontsize=8,
                      va="center", annotation_clip=False)  # fmt: skip
    if not names:
        axes.annotate("none", (0.5, 0.5), xycoords="axes fraction", color="#999999", ha="center")


def spread(heights: Sequence[float]) -> list[float]:
    """Ascending heights, moved so far apart that names fit, and together down again where they would leave the top."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + APART) if placed else height)
    ceiling = max(1.0, (len(placed) - 1) * APART)
    for place in range(len(placed) - 1, -1, -1):
        placed[place] = min(placed[place], ceiling)
        ceiling = placed[place] - APART
    return placed


def _headings(figure: Figure, report: Report) -> None:
    """The verdict in large, and what was measured where."""
    colour = CALM if report.steady else ALARM
    figure.text(0.035, 0.965, "Soak", fontsize=19, fontweight="bold", va="center")
    headline = fill(report.headline(), 140, max_lines=2, placeholder=" …")
    figure.text(
        0.085, 0.965, headline, fontsize=19 if report.steady else 12, fontweight="bold", color=colour, va="center"
    )
    figure.text(0.035, 0.927, report.machine.line(), fontsize=9)
    figure.text(0.035, 0.907, _told(report), fontsize=9)


def _told(report: Report) -> str:
    done = report.ledger.count()
    latency = [
        f"{line} {quantity(judged.end, 's')}" for key, line, judged in report.records.judged() if key == "latency"
    ]
    work = f"{done.done:,} pieces of work done, {done.failed:,} failed. Shaded: warm-up, not judged."
    turns = f" A streamed turn in the last quarter: {', '.join(latency)}." if latency else ""
    return f"{report.began:%Y-%m-%d %H:%M} UTC, {report.asked()}. {work}{turns}"

"""Draw a turn: time runs downwards, and each lane is a column with the steps of its thread or server."""

from collections.abc import Iterator, Sequence
from html import escape

from bench.trace.turn import CLIENT, LANES, POSTGRES, RABBITMQ, SERVERS, VALKEY, TraceStep

#: The columns, from the client to the servers.
COLUMNS = [CLIENT, *LANES.values(), RABBITMQ, POSTGRES, VALKEY]

#: Pixels: of a column, of a line of text, of the margins, and of the whole time axis.
WIDTH, LINE, MARGIN, TOP, HEIGHT = 164, 11, 44, 74, 1200

#: The width in pixels and the colour of the bars of each kind.
BARS = {
    "work": (26, "#e3e6ec"),
    "wait": (8, "#c9b8e8"),
    "postgres": (14, "#3f7fbf"),
    "valkey": (14, "#d1495b"),
    "rabbitmq": (14, "#e8963a"),
    "mark": (14, "#39414f"),
}

#: The most lines of the time axis.
TICKS = 30

LEGEND = {
    "work": "our code", "wait": "waits for a thread", "postgres": "Postgres", "valkey": "Valkey",
    "rabbitmq": "broker", "mark": "instant",
}  # fmt: skip

#: The longest label that fits in a column, in characters.
LONGEST = 27


def picture(steps: Sequence[TraceStep], title: str) -> str:
    """Draw the steps as an SVG."""
    scale = HEIGHT / max(step.end for step in steps if step.lane == CLIENT)
    columns = [name for name in COLUMNS if name in SERVERS.values() or any(step.lane == name for step in steps)]
    width, height = MARGIN + WIDTH * len(columns), TOP + HEIGHT + 2 * MARGIN
    bars = (line for name in columns for line in column(columns, name, steps, scale))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            'font-family="Helvetica, Arial, sans-serif" font-size="9.5">',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *frame(columns, title, scale, height),
            *bars,
            "</svg>\n",
        ]
    )


def frame(columns: Sequence[str], title: str, scale: float, height: int) -> Iterator[str]:
    """Draw title, legend, headings and the time axis."""
    yield f'<text x="{MARGIN}" y="20" font-size="15" font-weight="bold" fill="#222">{escape(title)}</text>'
    x = MARGIN
    for kind, text in LEGEND.items():
        yield f'<rect x="{x}" y="30" width="12" height="9" fill="{BARS[kind][1]}"/>'
        yield f'<text x="{x + 16}" y="38" fill="#444">{text}</text>'
        x += 34 + 5 * len(text)
    for number, name in enumerate(columns):
        left = MARGIN + WIDTH * number
        yield f'<text x="{left}" y="60" font-size="12" font-weight="bold" fill="#222">{escape(name)}</text>'
        yield f'<line x1="{left + 13}" y1="{TOP}" x2="{left + 13}" y2="{height - MARGIN}" stroke="#eceef2"/>'
    right = MARGIN + WIDTH * len(columns)
    for millisecond in range(0, int(HEIGHT / scale) + 1, max(1, round(HEIGHT / scale / TICKS))):
        y = TOP + millisecond * scale
        yield f'<path d="M{MARGIN - 6} {y:.1f} H{right}" stroke="#e9ebef" stroke-dasharray="2 3"/>'
        yield f'<text x="{MARGIN - 9}" y="{y + 3:.1f}" text-anchor="end" fill="#777">{millisecond} ms</text>'


def column(columns: Sequence[str], name: str, steps: Sequence[TraceStep], scale: float) -> Iterator[str]:
    """Draw the bars of a lane, the wide ones first, and their labels."""
    left = MARGIN + WIDTH * columns.index(name)
    own_steps = [step for step in steps if name in (step.lane, SERVERS.get(step.kind))]
    for step in sorted(own_steps, key=lambda step: -BARS[step.kind][0]):
        width, colour = BARS[step.kind]
        y, tall = TOP + step.begin * scale, max(step.milliseconds * scale, 2)
        hint = f"{step.lane}: {step.label}, {step.milliseconds:.2f} ms"
        yield (
            f'<rect x="{left + 13 - width / 2}" y="{y:.1f}" width="{width}" height="{tall:.1f}" rx="1.5" '
            f'fill="{colour}"><title>{escape(hint)}</title></rect>'
        )
    if name not in SERVERS.values():
        yield from labels(left + 30, own_steps, scale)


def labels(x: float, steps: Sequence[TraceStep], scale: float) -> Iterator[str]:
    """Draw labels without overlap: one whose position is taken moves down, and a line connects it with its bar."""
    free = 0.0
    for step in steps:
        y = TOP + step.begin * scale
        for number, text in enumerate(lines(step)):
            label_y = max(y + 8, free)
            if number == 0 and label_y > y + LINE:
                yield f'<path d="M{x - 8} {y:.1f} L{x - 2} {label_y - 3:.1f}" stroke="#b9bec8" fill="none"/>'
            yield f'<text x="{x}" y="{label_y:.1f}" fill="#333">{escape(text)}</text>'
            free = label_y + LINE


def lines(step: TraceStep) -> list[str]:
    """Return the lines of a label: one for each part, the last with the time of a step that takes any."""
    parts = list(step.parts or (step.label,))
    if step.kind == "mark":
        parts = [part.removeprefix("response.") for part in step.label.split(" + ")]
    elif step.kind == "wait":
        return [f"waits for {step.label}"[:LONGEST]]
    time = f" {step.milliseconds:.2f}" if step.kind != "mark" else ""
    return [part[:LONGEST] for part in parts[:-1]] + [parts[-1][: LONGEST - len(time)] + time]

"""A chart as SVG. Its colours are classes, of which the page has a light and a dark variant."""

from collections.abc import Iterable
from html import escape

from pipelines.reporting.formats.drawing import Drawing, Label, Path, Rectangle, Shape


def render_svg(drawing: Drawing, title: str) -> str:
    """Write a drawing as an SVG element. `title` describes it to those who do not see it."""
    size = f"0 0 {_number(drawing.width)} {_number(drawing.height)}"
    return f'<svg viewBox="{size}" role="img" aria-label="{escape(title)}">{"".join(_elements(drawing.shapes))}</svg>'


def _elements(shapes: Iterable[Shape]) -> Iterable[str]:
    for shape in shapes:
        if isinstance(shape, Rectangle):
            yield _rectangle(shape)
        elif isinstance(shape, Path):
            yield _path(shape)
        else:
            yield _label(shape)


def _rectangle(shape: Rectangle) -> str:
    position = f'x="{_number(shape.x)}" y="{_number(shape.y)}" width="{_number(shape.width)}"'
    element = f'<rect class="c{shape.colour}" {position} height="{_number(max(shape.height, 0.5))}"'
    return f"{element}><title>{escape(shape.hint)}</title></rect>" if shape.hint else f"{element}/>"


def _path(shape: Path) -> str:
    points = " ".join(f"{_number(x)},{_number(y)}" for x, y in shape.points)
    name = "grid" if shape.colour is None else f"line l{shape.colour}"
    return f'<polyline class="{name}" points="{points}"/>'


def _label(shape: Label) -> str:
    name = ' class="muted"' if shape.muted else ""
    anchor = "" if shape.anchor == "start" else f' text-anchor="{shape.anchor}"'
    return f'<text{name} x="{_number(shape.x)}" y="{_number(shape.y)}"{anchor}>{escape(shape.text)}</text>'


def _number(value: float) -> str:
    """Write a coordinate with at most two decimal places."""
    return f"{value:.2f}".rstrip("0").rstrip(".")

"""Write the table of the Helm chart's values into its README: `python -m docs.chart_values`.

A value is described by the comment above it that begins with `# --`. What is below it is its default.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CHART = Path(__file__).parents[1] / "k8s" / "sangha"
README = CHART / "README.md"

#: What encloses the table in the README.
BEGIN, END = "<!-- values: written by python -m docs.chart_values -->\n", "<!-- end of values -->\n"

KEY = re.compile(r"( *)([A-Za-z0-9_-]+):(?: (.*))?$")


@dataclass(frozen=True, slots=True)
class Value:
    """A value: its path, its default as text (empty: several lines), and what it means."""

    path: str
    default: str
    meaning: str


def read_values(text: str) -> list[Value]:
    """Return the described values of a `values.yaml`, in its order."""
    return list(_values(text.splitlines()))


def _values(lines: Sequence[str]) -> Iterator[Value]:
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in lines:
        if line.lstrip().startswith("#"):
            text = line.lstrip()[1:].strip()
            comment = [text[2:].strip()] if text.startswith("--") else [*comment, text] if comment else []
        elif match := KEY.match(line):
            indent = len(match[1])
            path = [*((depth, name) for depth, name in path if depth < indent), (indent, match[2])]
            if comment:
                yield Value(".".join(name for _, name in path), match[3] or "", " ".join(comment))
            comment = []
        else:
            comment = []


def with_table(text: str, values: Sequence[Value]) -> str:
    """Return the README with the table of these values."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = [f"| `{each.path}` | {_cell(each.default)} | {each.meaning} |\n" for each in values]
    return f"{before}{BEGIN}\n| Value | Default | Meaning |\n| --- | --- | --- |\n{''.join(rows)}\n{END}{after}"


def _cell(default: str) -> str:
    """Return a default as code; one of several lines is in `values.yaml`."""
    return f"`{default}`" if default else "see `values.yaml`"


if __name__ == "__main__":
    values = read_values((CHART / "values.yaml").read_text(encoding="utf-8"))
    README.write_text(with_table(README.read_text(encoding="utf-8"), values), encoding="utf-8")

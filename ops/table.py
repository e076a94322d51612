"""Align text in columns."""

from collections.abc import Container, Sequence


def align_columns(rows: Sequence[Sequence[object]], *, right: Container[int] = (), rule: bool = False) -> list[str]:
    """Return one line per row, with columns as wide as their widest cell and two spaces between them.

    right  indexes of the columns that are aligned to the right
    rule   draw a line below the first row, which holds the headings
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if rule:
        cells.insert(1, ["─" * width for width in widths])
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]

"""Text is aligned in columns."""

from ops.table import align_columns

ROWS = [("name", "count"), ("a", 5), ("longer", 1000)]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert align_columns(ROWS) == ["name    count", "a       5", "longer  1000"]


def test_columns_can_be_aligned_to_the_right_below_a_rule() -> None:
    assert align_columns(ROWS, right=[1], rule=True) == [
        "name    count",
        "──────  ─────",
        "a           5",
        "longer   1000",
    ]

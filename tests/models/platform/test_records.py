"""List the columns of records."""

from dataclasses import dataclass

from models.platform.records import columns


@dataclass
class Point:
    """A record with a field that is not a column."""

    x: int
    y: int
    label: str = ""


def test_columns_are_the_fields_in_their_order():
    assert columns(Point) == "x, y, label"


def test_columns_are_preceded_by_the_table():
    assert columns(Point, "points") == "points.x, points.y, points.label"


def test_omitted_fields_are_not_columns():
    assert columns(Point, "points", omit=("label",)) == "points.x, points.y"

"""Given a Range header, when content of ten bytes is asked for, then the range is as RFC 9110 has it."""

import pytest
from starlette.datastructures import Headers

from web.http.ranges import ByteRange, NotSatisfiable, names_etag, requested_range


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=3-", (3, 10)),
        ("bytes=3-5", (3, 6)),
        ("bytes=3-99", (3, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-40", (0, 10)),
        ("BYTES=9-9", (9, 10)),
        ("bytes=5-3", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=0-1,3-4", None),
        ("items=0-1", None),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)
def test_a_range(value, expected):
    found = requested_range(Headers({"range": value}), 10, '"etag"')

    assert found == (ByteRange(*expected) if expected else None)


@pytest.mark.parametrize("value", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_a_range_behind_the_end(value):
    with pytest.raises(NotSatisfiable):
        requested_range(Headers({"range": value}), 10, '"etag"')


def test_a_range_of_another_version_is_all():
    assert requested_range(Headers({"range": "bytes=1-2", "if-range": '"other"'}), 10, '"etag"') is None
    assert requested_range(Headers({"range": "bytes=1-2", "if-range": '"etag"'}), 10, '"etag"') == ByteRange(1, 3)


@pytest.mark.parametrize(
    ("value", "named"), [('"etag"', True), ('W/"etag"', True), ('"a", "etag"', True), ("*", True), ('"a"', False)]
)
def test_a_known_version(value, named):
    assert names_etag(Headers({"if-none-match": value}), '"etag"') is named

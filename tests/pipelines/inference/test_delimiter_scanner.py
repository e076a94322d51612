"""Given marks, when a text comes in any pieces, then they are found, and nothing that may begin one is told."""

from hypothesis import given
from hypothesis import strategies as st

from pipelines.inference.delimiter_scanner import DelimiterScanner

PIECES = st.lists(st.text("abc", max_size=4), max_size=12)
MARKS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)


@given(MARKS, PIECES)
def test_pieces_are_told_as_the_whole_would_be(texts: list[str], pieces: list[str]) -> None:
    marks, whole, told = DelimiterScanner(texts), "".join(pieces), ""
    for place, piece in enumerate(pieces):
        sure, mark, rest = marks.feed(piece)
        told += sure
        if mark is not None:
            # Then the first mark is found, with what stands on either side of it
            assert not any(text in told for text in texts)
            assert whole == told + mark + rest + "".join(pieces[place + 1 :])
            return
        # And what was told is never the beginning of one
        held = "".join(pieces[: place + 1])[len(told) :]
        assert not held or any(text.startswith(held) for text in texts)
    assert told + marks.flush() == whole
    assert not any(text in whole for text in texts)


def test_of_marks_at_one_place_the_first_counts() -> None:
    assert DelimiterScanner(["<a>", "<"]).feed("x<a>y") == ("x", "<a>", "y")
    assert DelimiterScanner(["", "b"]).feed("ab") == ("a", "b", "")

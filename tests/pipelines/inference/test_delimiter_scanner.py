"""Delimiters are found in a text that comes in any pieces, and a possible beginning is held back."""

from hypothesis import given
from hypothesis import strategies as st

from pipelines.inference.delimiter_scanner import DelimiterScanner

PIECES = st.lists(st.text("abc", max_size=4), max_size=12)
DELIMITERS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)


@given(DELIMITERS, PIECES)
def test_pieces_give_the_same_result_as_the_whole_text(delimiters: list[str], pieces: list[str]) -> None:
    scanner, whole, released = DelimiterScanner(delimiters), "".join(pieces), ""
    for number, piece in enumerate(pieces):
        complete, found, rest = scanner.feed(piece)
        released += complete
        if found is not None:
            # Then the first delimiter is found, with the text on both sides
            assert not any(delimiter in released for delimiter in delimiters)
            assert whole == released + found + rest + "".join(pieces[number + 1 :])
            return
        # And text that may begin one is held back
        held = "".join(pieces[: number + 1])[len(released) :]
        assert not held or any(delimiter.startswith(held) for delimiter in delimiters)
    assert released + scanner.flush() == whole
    assert not any(delimiter in whole for delimiter in delimiters)


def test_of_delimiters_at_one_position_the_first_listed_wins() -> None:
    assert DelimiterScanner(["<a>", "<"]).feed("x<a>y") == ("x", "<a>", "y")
    assert DelimiterScanner(["", "b"]).feed("ab") == ("a", "b", "")

"""Errors and log lines are shortened for the terminal."""

import pytest

from ops.messages import MAX_LINE_WIDTH, shorten_log_line


@pytest.mark.parametrize(
    ("line", "shortened"),
    [
        ("ERROR web: broke", "ERROR web: broke"),
        (r"ERROR web: broke\nTraceback (most …):\n  File\nKeyError: 'a'", "ERROR web: broke (KeyError: 'a')"),
        (r"ERROR web: broke\nTraceback (most …):\n  File\nKeyError: 'a'\n", "ERROR web: broke (KeyError: 'a')"),
    ],
)
def test_traceback_is_shortened_to_its_last_line(line: str, shortened: str) -> None:
    assert shorten_log_line(line) == shortened


def test_long_line_is_truncated_and_keeps_the_exception() -> None:
    shortened = shorten_log_line("m" * 3000 + r"\nTraceback\n  File\nKeyError: 'a'")
    assert len(shortened) <= MAX_LINE_WIDTH
    assert shortened.endswith("(KeyError: 'a')")

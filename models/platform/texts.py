"""Cut texts at the boundaries of user-perceived characters.

A user-perceived character (extended grapheme cluster, UAX #29) may have several code points: a letter with its marks,
or an emoji of several joined ones.
"""

import regex

#: Characters of the caller's text that an error message repeats.
MAX_ECHO = 100

#: Code points of a user-perceived character that is kept whole.
MAX_CLUSTER = 20

CLUSTER = regex.compile(r"\X")


def truncate(text: str, max_length: int = MAX_ECHO) -> str:
    """Cut a text to at most `max_length` characters; the last one is an ellipsis where something was cut off."""
    return text if len(text) <= max_length else f"{text[: cluster_boundary(text, max_length - 1)]}…"


def cluster_boundary(text: str, position: int) -> int:
    """Return the last boundary between user-perceived characters up to a position.

    One of more than MAX_CLUSTER code points is split: a text may have any number of marks in a row.
    """
    boundary = 0
    for match in CLUSTER.finditer(text, 0, position + 1):  # one code point further shows whether a boundary is there
        if match.end() > position:
            break
        boundary = match.end()
    return boundary if position - boundary < MAX_CLUSTER else position

"""Cut quotes of texts at the boundaries of words and of user-perceived characters.

A user-perceived character (extended grapheme cluster, UAX #29) may have several code points: a letter with its marks,
or an emoji of several joined ones. Scripts such as Japanese and Thai have no spaces between words.
"""

import regex

#: The last part of a word that is cut off, in characters. More would be a text without spaces.
MAX_WORD = 20

#: What follows the text of a quote that was cut.
ELLIPSIS = " …"

#: Code points of a user-perceived character that is kept whole.
MAX_CLUSTER = 20

CLUSTER = regex.compile(r"\X")


def cut_quote(text: str, max_length: int) -> str:
    """Cut a text to at most `max_length` characters, the ellipsis included. Cutting again changes nothing."""
    if len(text) <= max_length:
        return text
    kept = cut_text(text, max_length - len(ELLIPSIS))
    return kept.rstrip() + ELLIPSIS


def cut_text(text: str, max_length: int) -> str:
    """Return the beginning of a text, at most `max_length` characters, without the beginning of a word at its end."""
    if len(text) <= max_length:
        return text
    kept = text[: cluster_boundary(text, max_length)]
    space = kept.rfind(" ")
    if text[len(kept)].isspace() or space <= 0 or len(kept) - space > MAX_WORD:
        return kept
    return kept[:space]


def cluster_boundary(text: str, position: int) -> int:
    """Return the last boundary between user-perceived characters up to a position.

    One of more than MAX_CLUSTER code points is split: a text may have any number of marks in a row.
    """
    boundary = 0
    for match in CLUSTER.finditer(text):
        if match.end() > position:
            break
        boundary = match.end()
    return boundary if position - boundary < MAX_CLUSTER else position

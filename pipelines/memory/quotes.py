"""Cut quotes of texts at the boundaries of words, and of user-perceived characters.

Scripts such as Japanese and Thai have no spaces between words.
"""

from models.platform.texts import cluster_boundary

#: The last part of a word that is cut off, in characters. More would be a text without spaces.
MAX_WORD = 20

#: What follows the text of a quote that was cut.
ELLIPSIS = " …"


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

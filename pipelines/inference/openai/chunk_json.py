"""Read the JSON of an endpoint's chunks, also where a character is split between two of them.

Some endpoints cut an answer between the two halves of a character outside the Basic Multilingual Plane, written as
`\\ud83d` and `\\ude00`. Neither half is a character, and orjson rejects it.
"""

import json
from typing import Any

import orjson

#: The first halves of such characters.
FIRST_HALVES = ("\ud800", "\udbff")


def parse_json(data: bytes) -> Any:
    """Parse JSON that may contain halves of characters, or bytes that are not UTF-8. Raises ValueError."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data.decode(errors="replace"))


class HalfCharacterJoiner:
    """Joins the halves of characters across pieces of text; a half that stays alone becomes U+FFFD."""

    def __init__(self) -> None:
        self._half = ""

    def add(self, text: str) -> str:
        """Return the text without a first half at its end, which waits for the next piece."""
        if not self._half and (not text or text.isascii()):
            return text
        text, self._half = self._half + text, ""
        if text and FIRST_HALVES[0] <= text[-1] <= FIRST_HALVES[1]:
            text, self._half = text[:-1], text[-1]
        return join_halves(text)

    def flush(self) -> str:
        """Return the replacement of a half that waits, if there is one."""
        text, self._half = join_halves(self._half), ""
        return text


def join_halves(text: str) -> str:
    """Join the halves of characters in a text, and replace each single one by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

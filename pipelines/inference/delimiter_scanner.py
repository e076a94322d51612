"""Texts that mean something in an answer: those that end it, and the one that begins a call."""

from collections.abc import Sequence


class DelimiterScanner:
    """Looks for marks in an answer that comes in pieces."""

    def __init__(self, marks: Sequence[str]) -> None:
        self._marks = tuple(mark for mark in marks if mark)
        self._held = ""

    def feed(self, piece: str) -> tuple[str, str | None, str]:
        """What is surely text now; the first mark, if one has come; and what stands behind it.

        What may begin a mark waits. Of marks at one place the first in the list counts.
        """
        text = self._held + piece
        found = [(at, mark) for mark in self._marks if (at := text.find(mark)) >= 0]
        if found:
            at, mark = min(found, key=lambda pair: pair[0])
            self._held = ""
            return text[:at], mark, text[at + len(mark) :]
        sure = len(text) - self._doubtful(text)
        self._held = text[sure:]
        return text[:sure], None, ""

    def flush(self) -> str:
        """What waited, when nothing more comes: it was text."""
        text, self._held = self._held, ""
        return text

    def _doubtful(self, text: str) -> int:
        """How many characters at the end may begin a mark."""
        longest = max((len(mark) - 1 for mark in self._marks), default=0)
        sizes = range(min(longest, len(text)), 0, -1)
        return next((size for size in sizes if any(mark.startswith(text[-size:]) for mark in self._marks)), 0)

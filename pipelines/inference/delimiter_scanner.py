"""Find delimiters in streamed text: stop texts, and the marker that begins a tool call."""

from collections.abc import Sequence


class DelimiterScanner:
    """Finds the first of several delimiters in a text that comes in pieces."""

    def __init__(self, delimiters: Sequence[str]) -> None:
        self._delimiters = tuple(delimiter for delimiter in delimiters if delimiter)
        self._pending = ""

    def feed(self, piece: str) -> tuple[str, str | None, str]:
        """Read a piece. Returns the text before a delimiter, the delimiter if one is complete, and what follows it.

        Text that may be the beginning of a delimiter is held back. Of delimiters at one position the first listed wins.
        """
        text = self._pending + piece
        matches = [(position, delimiter) for delimiter in self._delimiters if (position := text.find(delimiter)) >= 0]
        if matches:
            position, delimiter = min(matches, key=lambda pair: pair[0])
            self._pending = ""
            return text[:position], delimiter, text[position + len(delimiter) :]
        complete = len(text) - self._partial_length(text)
        self._pending = text[complete:]
        return text[:complete], None, ""

    def flush(self) -> str:
        """Return the text that was held back, at the end of the input."""
        text, self._pending = self._pending, ""
        return text

    def _partial_length(self, text: str) -> int:
        """Return the number of characters at the end that may begin a delimiter."""
        longest = max((len(delimiter) - 1 for delimiter in self._delimiters), default=0)
        sizes = range(min(longest, len(text)), 0, -1)
        return next(
            (size for size in sizes if any(delimiter.startswith(text[-size:]) for delimiter in self._delimiters)), 0
        )

"""How fast an attempt generates."""

import time


class TokenPace:
    """When an attempt has generated tokens, since its journal was opened.

    first_seconds  when the first tokens came; None: none yet
    """

    def __init__(self) -> None:
        self._opened = self._last = time.monotonic()
        self.first_seconds: float | None = None
        self._later_tokens = 0

    def add(self, tokens: int) -> None:
        """Note that tokens were generated now."""
        if not tokens:
            return
        self._last = time.monotonic()
        if self.first_seconds is None:
            self.first_seconds = self._last - self._opened
        else:
            self._later_tokens += tokens

    @property
    def tokens_per_second(self) -> float | None:
        """The speed of the tokens after the first ones; None without any."""
        if self.first_seconds is None or not self._later_tokens:
            return None
        seconds = self._last - self._opened - self.first_seconds
        return self._later_tokens / seconds if seconds > 0 else None

"""What the person in front of it sees while it runs: one line, rewritten on a terminal, seldom repeated elsewhere."""

import sys
import time

#: Seconds between two lines where nothing can be rewritten.
SELDOM = 10.0

CLEAR = "\r\x1b[K"


class Progress:
    """Says on standard error what is being done."""

    def __init__(self) -> None:
        self._rewrites = sys.stderr.isatty()
        self._scenario = ""
        self._said = 0.0

    def begin(self, scenario: str) -> None:
        """A scenario begins."""
        self._scenario, self._said = scenario, 0.0
        self.say("begins")

    def say(self, what: str) -> None:
        """How far it is."""
        line = f"{self._scenario}: {what}" if self._scenario else what
        if self._rewrites:
            print(f"{CLEAR}{line}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._said > SELDOM:
            print(line, file=sys.stderr, flush=True)
            self._said = time.monotonic()

    def step(self, done: int, of: int, what: str) -> None:
        """How many of how many."""
        self.say(f"{what}, {done} of {of}")

    def clear(self) -> None:
        """Leave the line to others."""
        if self._rewrites:
            print(CLEAR, end="", file=sys.stderr, flush=True)

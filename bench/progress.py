"""Report progress on standard error: one line, rewritten on a terminal, repeated every 10 seconds elsewhere."""

import sys
import time

#: Seconds between two lines where no line can be rewritten.
INTERVAL = 10.0

CLEAR = "\r\x1b[K"


class Progress:
    """The progress line."""

    def __init__(self) -> None:
        self._rewrites = sys.stderr.isatty()
        self._scenario = ""
        self._printed_at = 0.0

    def begin(self, scenario: str) -> None:
        """Start a scenario: its name is in front of every line from here on."""
        self._scenario, self._printed_at = scenario, 0.0
        self.report("starting")

    def report(self, state: str) -> None:
        """Show what is being done."""
        line = f"{self._scenario}: {state}" if self._scenario else state
        if self._rewrites:
            print(f"{CLEAR}{line}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._printed_at > INTERVAL:
            print(line, file=sys.stderr, flush=True)
            self._printed_at = time.monotonic()

    def step(self, done: int, total: int, unit: str) -> None:
        """Show how many of how many are done."""
        self.report(f"{unit}, {done} of {total}")

    def clear(self) -> None:
        """Remove the line."""
        if self._rewrites:
            print(CLEAR, end="", file=sys.stderr, flush=True)

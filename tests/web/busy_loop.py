"""Measure for how long a request keeps the event loop of a test's server busy.

It is the CPU time of the loop's thread without a pause, so that a busy machine changes little.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from web.http import loop_watchdog
from web.http.loop_watchdog import LoopWatchdog

#: CPU seconds of the loop's thread that one request may take without a pause.
MOST = 0.05


class BusyLoop:
    """The event loop of a server."""

    def __init__(self, watchdog: LoopWatchdog) -> None:
        self._watchdog = watchdog

    def measure(self, send: Callable[[], object]) -> float:
        """Send a request; returns the longest time without a pause, in CPU seconds."""
        self._watchdog._current = self._watchdog._previous = 0.0
        send()
        return self._watchdog.longest


@contextmanager
def watch_loop(client: httpx.Client) -> Iterator[BusyLoop]:
    """Have the watchdog of the client's server look every few milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_watchdog, "INTERVAL", 0.002)
        yield BusyLoop(client.app.state.platform.watchdog)  # type: ignore[attr-defined]

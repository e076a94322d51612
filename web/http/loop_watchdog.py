"""Measure how long the event loop is busy without a pause, and log what kept it busy.

A thread asks the loop for a sign of life, and measures the CPU time that the thread of the loop spends until it gives
one: the time that every other request waits. CPU time, since a busy machine is no fault of the process. While the sign
is overdue, the stack of the loop's thread shows what runs.
"""

import asyncio
import logging
import sys
import threading
import time
import traceback

log = logging.getLogger(__name__)

#: Seconds between two measurements. What takes longer than this and LIMIT together is always seen.
INTERVAL = 0.1

#: Seconds of CPU time without a sign of life from which a warning is logged.
LIMIT = 0.1

#: Seconds for which a maximum is kept: that of the current and of the previous period is reported.
PERIOD = 60.0

#: Frames of the stack that are logged: the innermost ones.
FRAMES = 6


class LoopWatchdog:
    """Watches the event loop on which it is started, from a daemon thread."""

    def __init__(self) -> None:
        self._current = self._previous = 0.0
        self._period_ends_at = time.monotonic() + PERIOD
        self._stopped = threading.Event()

    @property
    def longest(self) -> float:
        """The longest CPU time without a sign of life within the last one to two minutes, in seconds."""
        return max(self._current, self._previous)

    def start(self) -> None:
        """Start watching the running loop. Call it on the loop's thread."""
        arguments = asyncio.get_running_loop(), threading.get_ident()
        threading.Thread(target=self._run, args=arguments, name="loop watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop watching; returns at once."""
        self._stopped.set()

    def _run(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        clock = time.pthread_getcpuclockid(thread)
        while not self._stopped.wait(INTERVAL):
            try:
                self._note(self._measure(loop, thread, clock))
            except (RuntimeError, OSError):  # the loop is closed, or its thread has ended
                return

    def _measure(self, loop: asyncio.AbstractEventLoop, thread: int, clock: int) -> float:
        """Return the CPU seconds that the loop's thread takes until it gives a sign of life."""
        alive = threading.Event()
        started = time.clock_gettime(clock)
        ended = started
        stack = ""

        def sign() -> None:
            nonlocal ended
            ended = time.thread_time()
            alive.set()

        loop.call_soon_threadsafe(sign)
        while not alive.wait(LIMIT):
            if self._stopped.is_set():
                return 0.0
            if not stack and time.clock_gettime(clock) - started > LIMIT / 2:
                stack = _stack_of(thread)
        busy = ended - started
        if busy > LIMIT:
            log.warning("The event loop was busy for %.2f s without a pause%s", busy, stack and f", in:\n{stack}")
        return busy

    def _note(self, seconds: float) -> None:
        if time.monotonic() > self._period_ends_at:
            self._previous, self._current = self._current, 0.0
            self._period_ends_at = time.monotonic() + PERIOD
        self._current = max(self._current, seconds)


def _stack_of(thread: int) -> str:
    """Return the innermost frames of a thread, one a line."""
    frame = sys._current_frames().get(thread)
    frames = traceback.extract_stack(frame)[-FRAMES:] if frame is not None else []
    return "\n".join(f"  {entry.filename}:{entry.lineno} {entry.name}" for entry in frames)

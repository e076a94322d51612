"""Watch the attempt of a call while it runs: report progress, and say when to stop."""

import math
import time

from models.jobs.attempt_context import Attempt
from models.platform.errors import Released
from pipelines.agents.mcp.outcomes import CallState

#: Seconds between two reports of progress.
INTERVAL = 1.0

#: Seconds that a call which must not be repeated may go on when its worker stops: less than the worker waits for it.
GRACE = 6.0

#: The largest number of a progress, and characters of its note.
MOST, MAX_NOTE = 2**53, 500


class AttemptWatch:
    """Is called every few milliseconds by the thread that waits for a call. True: stop.

    patient     whether a worker that stops lets the call go on for GRACE seconds: an interrupted one is in doubt
    task_slice  seconds after which a call that has become a task is left to the next attempt
    yielded     whether it stopped because of the task slice
    """

    def __init__(self, attempt: Attempt, state: CallState, *, patient: bool, task_slice: float) -> None:
        self._attempt = attempt
        self._state = state
        self._patient = patient
        self._slice_ends = time.monotonic() + task_slice
        self._released_at: float | None = None
        self._reported: tuple[object, object] = (None, state.task_id)
        self._next_report = 0.0
        self.yielded = False

    def __call__(self) -> bool:
        """Return whether to stop; reports progress otherwise."""
        now = time.monotonic()
        if (reason := self._attempt.stop_reason()) is not None:
            return not (isinstance(reason, Released) and self._goes_on(now))
        self._report(now)
        self.yielded = self._state.task_id is not None and now > self._slice_ends
        return self.yielded

    def _goes_on(self, now: float) -> bool:
        if not self._patient or self._state.task_id is not None:
            return False
        self._released_at = self._released_at or now
        return now < self._released_at + GRACE

    def _report(self, now: float) -> None:
        """Store the id of a new task at once, and new progress once a second."""
        current = (self._state.progress, self._state.task_id)
        if current == self._reported or (now < self._next_report and current[1] == self._reported[1]):
            return
        done, total, note = self._state.progress or (0, None, "")
        resume = {"task_id": self._state.task_id} if self._state.task_id is not None else None
        total = None if total is None else _whole(total)
        self._attempt.report_progress(_whole(done), total, note[:MAX_NOTE], resume=resume)
        self._reported, self._next_report = current, now + INTERVAL


def _whole(number: float) -> int:
    """Return a number of a server as one that JSON and Postgres store: 0 for one that is not finite."""
    return int(min(max(number, 0), MOST)) if math.isfinite(number) else 0

"""Limit how long one attempt works on a long job."""

import time

from models.jobs.attempt_context import Attempt
from models.platform.errors import Released

#: Seconds that one attempt works before the job is released.
SECONDS = 600.0


class TimeSlice:
    """The time that one attempt may work before it releases its job; the next attempt continues from its progress.

    A long job thus never holds a message for longer than the broker waits for an acknowledgement.
    """

    def __init__(self, attempt: Attempt, seconds: float = SECONDS) -> None:
        self._attempt = attempt
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raise the reason to stop, or Released after the time slice."""
        self._attempt.check()
        if time.monotonic() > self._end:
            raise Released("time slice used up; another attempt continues the job")
